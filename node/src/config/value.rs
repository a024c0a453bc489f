//! Values of settings: how they are written, and how they are read.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hub_storage::rabbitmq::Prefix;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

/// A value as it was written.
#[derive(Clone, PartialEq, Eq)]
pub enum Raw {
    /// Text, from any layer.
    Text(String),
    /// A number of the file.
    Integer(i64),
    /// `true` or `false` in the file, or a flag without a value.
    Bool(bool),
    /// An array of the file, or a flag that was repeated.
    List(Vec<Self>),
    /// Something that no setting takes.
    Unfit(&'static str),
}

impl Raw {
    /// As one text: what stands in the environment.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::List(items) => items.iter().map(Self::text).collect::<Vec<_>>().join(","),
            Self::Unfit(kind) => format!("a {kind}"),
        }
    }

    /// As one text, if it is a single value.
    fn single(&self, expected: &str) -> Result<String, String> {
        match self {
            Self::Text(_) | Self::Integer(_) | Self::Bool(_) => Ok(self.text()),
            Self::List(_) => Err(format!("must be {expected}, not a list")),
            Self::Unfit(kind) => Err(format!("must be {expected}, not a {kind}")),
        }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw(..)")
    }
}

/// How a value is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In quotes.
    Text,
    /// As it is: numbers and booleans.
    Plain,
    /// An array of texts.
    List,
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// How it is written in the file.
    const FORM: Form;
    /// Never shown, and may be given by `NAME_FILE`.
    const SECRET: bool = false;
    /// Reads it; the error says what it must be.
    ///
    /// # Errors
    /// What the value must be.
    fn parse(raw: &Raw) -> Result<Self, String>;
}

fn number(raw: &Raw) -> Result<u64, String> {
    let text = raw.single("a number")?;
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    digits.parse().map_err(|_| "must be a whole number, 0 or more".to_owned())
}

macro_rules! integer_setting {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            const FORM: Form = Form::Plain;
            fn parse(raw: &Raw) -> Result<Self, String> {
                number(raw)?.try_into().map_err(|_| format!("must be at most {}", <$type>::MAX))
            }
        }
    )*};
}

integer_setting!(u8 u16 u32 u64 usize);

impl Setting for bool {
    const FORM: Form = Form::Plain;
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw.single("true or false")?.as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

impl Setting for String {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        raw.single("a text")
    }
}

impl Setting for PathBuf {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.single("a path")?;
        if text.is_empty() { Err("must be a path".to_owned()) } else { Ok(text.into()) }
    }
}

impl Setting for Prefix {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.single("a text")?;
        text.parse().map_err(|error: hub_storage::rabbitmq::PrefixError| error.to_string())
    }
}

impl Setting for Duration {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.single("a duration such as 250ms, 30s or 7d")?;
        humantime::parse_duration(&text).map_err(|_| "must be a duration such as 250ms, 30s or 7d".to_owned())
    }
}

impl Setting for SocketAddr {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let expected = "must be an address and port such as 127.0.0.1:8200 or [::]:8200";
        raw.single("an address and port")?.parse().map_err(|_| expected.to_owned())
    }
}

impl Setting for IpNet {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.single("a network")?;
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(Self::from));
        net.map_err(|_| format!("{text:?} must be a network such as 10.0.0.0/8 or fd00::/8"))
    }
}

impl<T: Setting> Setting for Option<T> {
    const FORM: Form = T::FORM;
    const SECRET: bool = T::SECRET;
    fn parse(raw: &Raw) -> Result<Self, String> {
        if matches!(raw, Raw::Text(text) if text.is_empty()) { Ok(None) } else { T::parse(raw).map(Some) }
    }
}

impl<T: Setting> Setting for Vec<T> {
    const FORM: Form = Form::List;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let split = |text: &str| {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| Raw::Text(part.to_owned())).collect::<Vec<_>>()
        };
        let items = match raw {
            Raw::List(items) => items
                .iter()
                .flat_map(|item| if let Raw::Text(text) = item { split(text) } else { vec![item.clone()] })
                .collect(),
            single => split(&single.single("a list")?),
        };
        items.iter().map(T::parse).collect()
    }
}

/// A number of bytes: `1MiB`, `512 KiB`, `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Setting for ByteSize {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let expected = "must be a number of bytes such as 1048576, 64KiB, 1MiB or 2GiB";
        let text = raw.single("a number of bytes")?;
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.replace('_', "").parse().map_err(|_| expected.to_owned())?;
        let scale: u64 = match unit.trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "KiB" | "k" | "K" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" | "m" | "M" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" | "g" | "G" => 1 << 30,
            _ => return Err(expected.to_owned()),
        };
        number.checked_mul(scale).map(Self).ok_or_else(|| "is too large".to_owned())
    }
}

/// A host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Setting for HostPort {
    const FORM: Form = Form::Text;
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = raw.single("host:port")?;
        let wrong = || format!("{text:?} must be host:port, such as hub-1:8300");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if bare.is_empty() || port == 0 || !bare.chars().all(legal) || (bare == host && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Self { host: bare.to_owned(), port })
    }
}

/// A secret: never printed.
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

impl Secret {
    /// The secret itself. Look at each use twice.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Setting for Secret {
    const FORM: Form = Form::Text;
    const SECRET: bool = true;
    fn parse(raw: &Raw) -> Result<Self, String> {
        raw.single("a text").map(Self::from)
    }
}
