//! What operators send, as the document describes it.

use serde::Serialize;
use utoipa::ToSchema;

/// Which node to drain.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(example = json!({"node_id": 2}))]
pub struct DrainInput {
    /// The node; the one that gets the request when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<u64>,
}

/// Which leadership to hand over.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"group": "control", "to": 2}))]
pub struct TransferInput {
    /// `control` or `messages`.
    #[schema(pattern = "^(control|messages)$")]
    pub group: String,
    /// To which node; the best other voter when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}
