//! The secret that nodes of one cluster share.

use aws_lc_rs::hmac;

/// The cluster's key. Whoever proves it is a node.
#[derive(Clone)]
pub struct ClusterKey(hmac::Key);

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

impl ClusterKey {
    /// From the bytes of `CLUSTER_KEY`.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The default when there is no `CLUSTER_KEY`: from `SECRET_KEY`, so that neither can be got from the other's use.
    #[must_use]
    pub fn derived(secret_key: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key);
        Self::new(hmac::sign(&key, b"message-hub cluster key v1").as_ref())
    }

    /// A proof that its maker has the key and means `label` and `transcript`.
    pub(super) fn prove(&self, label: &[u8], transcript: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label);
        context.update(transcript);
        let mut proof = [0; 32];
        proof.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        proof
    }

    /// Checks a proof, in constant time.
    pub(super) fn check(&self, label: &[u8], transcript: &[u8], proof: &[u8; 32]) -> bool {
        let message = [label, transcript].concat();
        hmac::verify(&self.0, &message, proof).is_ok()
    }
}
