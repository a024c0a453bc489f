//! What is particular to each of the three servers.

/// User, password and database of every test server; they listen on loopback only.
pub(crate) const WORD: &str = "message_hub";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL 17, or what [`crate::POSTGRES_VERSION`] says.
    Postgres,
    /// RabbitMQ 4.
    RabbitMq,
    /// Redis 8, with a password and an append-only file.
    Redis,
}

impl Kind {
    /// As the image and the labels name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
        }
    }

    /// Which image. Another version of PostgreSQL by [`crate::POSTGRES_VERSION`].
    pub(crate) fn tag(self) -> String {
        match self {
            Self::Postgres => std::env::var(crate::POSTGRES_VERSION).unwrap_or_else(|_| "17".to_owned()),
            Self::RabbitMq => "4".to_owned(),
            Self::Redis => "8".to_owned(),
        }
    }

    /// The port that it listens on inside its container.
    pub(crate) fn inner_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::RabbitMq => 5672,
            Self::Redis => 6379,
        }
    }

    /// The folder inside its container that outlives its process.
    pub(crate) fn data(self) -> &'static str {
        match self {
            Self::Postgres => "/var/lib/postgresql/data",
            Self::RabbitMq => "/var/lib/rabbitmq",
            Self::Redis => "/data",
        }
    }

    pub(crate) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Postgres => &[("POSTGRES_USER", WORD), ("POSTGRES_PASSWORD", WORD), ("POSTGRES_DB", WORD)],
            // Its data belong to this name, which must not come from the container's.
            Self::RabbitMq => &[
                ("RABBITMQ_NODENAME", "rabbit@localhost"),
                ("RABBITMQ_DEFAULT_USER", WORD),
                ("RABBITMQ_DEFAULT_PASS", WORD),
            ],
            Self::Redis => &[],
        }
    }

    /// The command in its container; the image's own if empty.
    pub(crate) fn command(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "-c", "max_connections=300"],
            Self::RabbitMq => &[],
            Self::Redis => &["redis-server", "--requirepass", WORD, "--appendonly", "yes"],
        }
    }

    /// The database, virtual host or number that is there from the start, as a URL writes it.
    pub(crate) fn first_place(self) -> &'static str {
        match self {
            Self::Postgres => WORD,
            Self::RabbitMq => "%2f",
            Self::Redis => "0",
        }
    }

    /// How a client is told where `place` on the server behind `port` is.
    pub(crate) fn url(self, port: u16, place: &str) -> String {
        match self {
            Self::Postgres => format!("postgres://{WORD}:{WORD}@127.0.0.1:{port}/{place}"),
            Self::RabbitMq => format!("amqp://{WORD}:{WORD}@127.0.0.1:{port}/{place}"),
            Self::Redis => format!("redis://:{WORD}@127.0.0.1:{port}/{place}"),
        }
    }
}
