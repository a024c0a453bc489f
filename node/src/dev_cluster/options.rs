//! What a cluster on this machine shall be like.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// What a cluster on this machine shall be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary of the nodes.
    pub program: PathBuf,
    /// How many nodes, 1 to 9.
    pub nodes: usize,
    /// REST on this port and the following, nodes among each other 100 above; 0 takes free ports.
    pub base_port: u16,
    /// Keeps the data here; a temporary folder that goes with the cluster if `None`.
    pub data: Option<PathBuf>,
    /// Calls need a token.
    pub auth: bool,
    /// Heartbeat and election times: `default`, `fast` or `wan`.
    pub profile: Option<String>,
    /// Further settings, `section.key=value`.
    pub settings: Vec<String>,
    /// Environment of the nodes besides: the servers that they use.
    pub servers: Vec<(&'static str, SecretString)>,
    /// How long forming may take.
    pub ready_within: Duration,
}

impl Options {
    /// Nodes of the binary `program` on free ports, in a temporary folder.
    #[must_use]
    pub fn new(program: PathBuf, nodes: usize) -> Self {
        Self {
            program,
            nodes,
            base_port: 0,
            data: None,
            auth: true,
            profile: None,
            settings: Vec::new(),
            servers: Vec::new(),
            ready_within: Duration::from_secs(60),
        }
    }
}
