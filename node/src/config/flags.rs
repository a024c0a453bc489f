//! The flags of `serve`; `config check` and `config show` take the same.

use std::path::PathBuf;

use super::Inputs;
use super::value::Raw;

/// Settings by flag, and what only makes sense once.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// Configuration file [default: message-hub.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "MESSAGE_HUB_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data folder [default: message-hub-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address of the REST interface [default: 127.0.0.1:8200]; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub rest: Option<String>,
    /// Base URL under which others reach the REST interface [default: made from --rest]
    #[arg(long, value_name = "URL")]
    pub rest_advertise: Option<String>,
    /// Address for other nodes [default: 127.0.0.1:8300]; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub raft: Option<String>,
    /// Address under which other nodes reach this one [default: made from --raft]
    #[arg(long, value_name = "HOST:PORT")]
    pub raft_advertise: Option<String>,
    /// Heartbeat and election times: default, fast or wan
    #[arg(long, value_name = "PROFILE")]
    pub raft_profile: Option<String>,
    /// Join the cluster of this node; may be given several times
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Vec<String>,
    /// Form a cluster of so many nodes, together with --peers
    #[arg(long, value_name = "N")]
    pub expect: Option<u16>,
    /// The nodes that form the cluster, this one included, or one DNS name that resolves to all
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// The second node becomes a voter at once
    #[arg(long)]
    pub two_nodes: bool,
    /// Traffic between nodes may leave the loopback interface, though it is not encrypted
    #[arg(long)]
    pub plain_peers: bool,
    /// Set the old data folder aside and join as a new node
    #[arg(long)]
    pub rejoin: bool,
    /// Everybody may do everything: calls need no token
    #[arg(long)]
    pub no_auth: bool,
    /// Log level: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log format: auto, text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Any setting; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl ServeFlags {
    /// All layers: these flags over the environment of this process.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Inputs { file: self.config.clone(), env, flags: self.overrides() }
    }

    /// The flags as settings.
    #[must_use]
    pub fn overrides(&self) -> Vec<(String, Raw, String)> {
        let mut found: Vec<(String, Raw, String)> = Vec::new();
        let mut put = |path: &str, raw: Raw, flag: &str| found.push((path.to_owned(), raw, flag.to_owned()));
        for setting in &self.set {
            let (path, value) = setting.split_once('=').unwrap_or((setting, ""));
            put(path.trim(), Raw::Text(value.trim().to_owned()), "--set");
        }
        let data = self.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        let texts = [
            ("node.data", data.as_ref(), "--data"),
            ("rest.listen", self.rest.as_ref(), "--rest"),
            ("rest.advertise", self.rest_advertise.as_ref(), "--rest-advertise"),
            ("raft.listen", self.raft.as_ref(), "--raft"),
            ("raft.advertise", self.raft_advertise.as_ref(), "--raft-advertise"),
            ("raft.profile", self.raft_profile.as_ref(), "--raft-profile"),
            ("log.level", self.log_level.as_ref(), "--log-level"),
            ("log.format", self.log_format.as_ref(), "--log-format"),
        ];
        for (path, text, flag) in texts {
            if let Some(text) = text {
                put(path, Raw::Text(text.clone()), flag);
            }
        }
        for (path, list, flag) in
            [("raft.join", &self.join, "--join"), ("raft.peers", &self.peers, "--peers")]
        {
            if !list.is_empty() {
                put(path, Raw::List(list.iter().cloned().map(Raw::Text).collect()), flag);
            }
        }
        if let Some(count) = self.expect {
            put("raft.expect", Raw::Integer(count.into()), "--expect");
        }
        let switches = [
            ("raft.two_nodes", self.two_nodes, true, "--two-nodes"),
            ("raft.plain_peers", self.plain_peers, true, "--plain-peers"),
            ("auth.enabled", self.no_auth, false, "--no-auth"),
        ];
        for (path, given, value, flag) in switches {
            if given {
                put(path, Raw::Bool(value), flag);
            }
        }
        found
    }
}
