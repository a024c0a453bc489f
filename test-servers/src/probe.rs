//! Whether a server takes connections, asked in its own protocol from outside its container.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Kind;
use crate::kind::WORD;

/// How long one attempt may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether the server behind `port` answers as it does when it is ready for clients.
pub(crate) async fn is_ready(kind: Kind, port: u16) -> bool {
    matches!(tokio::time::timeout(LIMIT, answer(kind, port)).await, Ok(Ok(answer)) if means_ready(kind, answer))
}

/// The first byte that it answers to a client's first words.
async fn answer(kind: Kind, port: u16) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&first_words(kind)).await?;
    stream.read_u8().await
}

fn first_words(kind: Kind) -> Vec<u8> {
    match kind {
        // Length, protocol 3.0, parameters.
        Kind::Postgres => {
            let parameters = format!("user\0{WORD}\0database\0{WORD}\0\0");
            let length = u32::try_from(8 + parameters.len()).unwrap_or(u32::MAX);
            [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat()
        }
        Kind::RabbitMq => b"AMQP\0\0\x09\x01".to_vec(),
        Kind::Redis => format!("AUTH {WORD}\r\n").into_bytes(),
    }
}

fn means_ready(kind: Kind, answer: u8) -> bool {
    answer
        == match kind {
            // It asks for the password; while it starts or recovers it says E.
            Kind::Postgres => b'R',
            // A method frame: Connection.Start.
            Kind::RabbitMq => 1,
            // +OK; while it loads it says -LOADING.
            Kind::Redis => b'+',
        }
}
