//! Layers, unknown keys, secrets and cross checks.

use std::io::Write;

use hub_core::error::code;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn defaults_are_valid_and_documented() {
    let empty = file("");
    let loaded = load(&Inputs { file: Some(empty.path().into()), ..Inputs::default() }).unwrap();
    assert_eq!(loaded.config.rest.listen.port(), 8200);
    assert!(KEYS.iter().all(|key| !key.doc.is_empty()));
}

#[test]
fn the_default_file_says_the_defaults() {
    let plain = default_toml();
    // Only settings have no blank between the mark and the text.
    let uncommented: String = plain
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let written = file(&uncommented);
    let loaded = load(&Inputs { file: Some(written.path().into()), ..Inputs::default() }).unwrap();
    assert_eq!(loaded.origins.len(), KEYS.len());
    let empty = file("");
    let defaults = load(&Inputs { file: Some(empty.path().into()), ..Inputs::default() }).unwrap();
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", defaults.config));
}

#[test]
fn later_layers_win() {
    let written = file("[rest]\nlisten = \"127.0.0.1:1\"\nmax_connections = 5\n[log]\nlevel = \"warn\"\n");
    let flags = ServeFlags { rest: Some("127.0.0.1:3".to_owned()), ..ServeFlags::default() };
    let loaded = load(&Inputs {
        file: Some(written.path().into()),
        env: env(&[
            ("MESSAGE_HUB_REST__LISTEN", "127.0.0.1:2"),
            ("LOG_LEVEL", "debug"),
            ("MAX_RETRIES", "3"),
        ]),
        flags: flags.overrides(),
    })
    .unwrap();
    assert_eq!(loaded.config.rest.listen.port(), 3);
    assert_eq!(loaded.config.rest.max_connections, 5);
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(loaded.config.delivery.max_retries, 3);
    assert_eq!(loaded.origins["rest.listen"].source, Source::Flag("--rest".to_owned()));
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let written = file("[rest]\nlissten = \"x\"\nheader_timeout = \"soon\"\n[nonsense]\na = 1\n");
    let errors = load(&Inputs {
        file: Some(written.path().into()),
        env: env(&[
            ("MESSAGE_HUB_RAFT__EXPECT", "many"),
            ("MESSAGE_HUB_X__Y", "1"),
            ("TRANSACTION_TIMEOUT", "1s"),
        ]),
        flags: ServeFlags { set: vec!["a.b=c".to_owned()], ..ServeFlags::default() }.overrides(),
    })
    .unwrap_err();
    let text = errors.to_string();
    for wanted in [
        "rest.lissten: is not a setting; did you mean rest.listen?",
        "line 2",
        "rest.header_timeout: must be a duration",
        "line 3",
        "nonsense: is not a setting",
        "raft.expect: must be a whole number",
        "environment variable MESSAGE_HUB_RAFT__EXPECT",
        "x.y: is not a setting",
        "[HUB-1006] TRANSACTION_TIMEOUT",
        "a.b: is not a setting",
        "flag --set",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
    }
}

#[test]
fn promised_names_that_are_not_built_are_refused() {
    let empty = file("");
    for name in ["CIRCUIT_BREAKER_TIMEOUT", "CIRCUIT_BREAKER_THRESHOLD", "TRANSACTION_TIMEOUT"] {
        let errors =
            load(&Inputs { file: Some(empty.path().into()), env: env(&[(name, "1")]), ..Inputs::default() })
                .unwrap_err();
        assert_eq!(errors.code(), code::NOT_BUILT, "{name}");
    }
}

#[test]
fn secrets_come_by_value_or_by_file_and_are_never_shown() {
    let empty = file("");
    let secret = file(&format!("{KEY}\n"));
    let by_file = env(&[("SECRET_KEY_FILE", secret.path().to_str().unwrap()), ("CLUSTER_KEY", KEY)]);
    let loaded =
        load(&Inputs { file: Some(empty.path().into()), env: by_file, ..Inputs::default() }).unwrap();
    assert_eq!(loaded.config.auth.secret_key.as_ref().unwrap().expose(), KEY);
    assert!(!show(&loaded).contains(KEY));
    assert!(!format!("{loaded:?}").contains(KEY));

    let both = env(&[("SECRET_KEY_FILE", secret.path().to_str().unwrap()), ("SECRET_KEY", KEY)]);
    let errors =
        load(&Inputs { file: Some(empty.path().into()), env: both, ..Inputs::default() }).unwrap_err();
    assert!(errors.to_string().contains("unset one of the two"));
}

#[test]
fn urls_of_servers_are_secrets_of_the_right_scheme() {
    let empty = file("");
    let loaded = |value: &str| {
        load(&Inputs {
            file: Some(empty.path().into()),
            env: env(&[("DATABASE_URL", value)]),
            ..Inputs::default()
        })
    };
    let fine = loaded("postgres://hub:hunter2@db:5432/hub").unwrap();
    assert!(fine.config.postgres.url.is_some());
    assert!(!show(&fine).contains("hunter2") && !format!("{fine:?}").contains("hunter2"));
    for wrong in ["mysql://hub:hunter2@db/hub", "hunter2", "db:5432"] {
        let refused = loaded(wrong).unwrap_err().to_string();
        assert!(refused.contains("postgres.url: must be a URL such as postgres://"), "{refused}");
        assert!(!refused.contains(wrong), "{refused}");
    }
}

#[test]
fn a_broker_stands_in_front_of_a_database() {
    let empty = file("");
    let loaded = |pairs: &[(&str, &str)]| {
        load(&Inputs { file: Some(empty.path().into()), env: env(pairs), ..Inputs::default() })
    };
    let (database, broker) =
        (("DATABASE_URL", "postgres://hub@db/hub"), ("RABBITMQ_URL", "amqp://hub:hunter2@mq/%2f"));
    let fine = loaded(&[database, broker, ("QUEUE_PREFIX", "shop")]).unwrap();
    assert!(!show(&fine).contains("hunter2") && show(&fine).contains("queue_prefix = \"shop\""));
    let alone = loaded(&[broker]).unwrap_err().to_string();
    assert!(alone.contains("rabbitmq.url: needs postgres.url (DATABASE_URL)"), "{alone}");
    let wrong = loaded(&[database, ("RABBITMQ_URL", "http://hub:hunter2@mq")]).unwrap_err().to_string();
    assert!(wrong.contains("rabbitmq.url: must be") && !wrong.contains("hunter2"), "{wrong}");
    let dotted = loaded(&[database, broker, ("QUEUE_PREFIX", "a.b")]).unwrap_err().to_string();
    assert!(dotted.contains("rabbitmq.queue_prefix: must be 1 to 64"), "{dotted}");
}

#[test]
fn a_short_key_has_its_own_code() {
    let empty = file("");
    let errors = load(&Inputs {
        file: Some(empty.path().into()),
        env: env(&[("SECRET_KEY", "short")]),
        ..Inputs::default()
    })
    .unwrap_err();
    assert_eq!(errors.code(), code::NO_KEY);
    assert!(!errors.to_string().contains("\"short\""));
}

#[test]
fn settings_that_do_not_fit_each_other_are_refused() {
    let empty = file("");
    let refused = |flags: ServeFlags| {
        load(&Inputs { file: Some(empty.path().into()), env: Vec::new(), flags: flags.overrides() })
            .unwrap_err()
    };
    let exposed = refused(ServeFlags { raft: Some("0.0.0.0:8300".to_owned()), ..ServeFlags::default() });
    assert_eq!(exposed.code(), code::PLAIN_PEERS);
    let lonely = refused(ServeFlags { expect: Some(3), ..ServeFlags::default() });
    assert!(lonely.to_string().contains("raft.expect: needs raft.peers"));
    let both = refused(ServeFlags {
        expect: Some(1),
        peers: vec!["127.0.0.1:1".to_owned()],
        join: vec!["127.0.0.1:2".to_owned()],
        ..ServeFlags::default()
    });
    assert!(both.to_string().contains("raft.join"));
    let large = refused(ServeFlags {
        set: vec!["messages.max_content_bytes=4MiB".to_owned()],
        ..ServeFlags::default()
    });
    assert!(large.to_string().contains("messages.max_content_bytes: must be between"));
}

#[test]
fn a_redis_url_is_a_secret_and_must_be_one() {
    let empty = file("");
    let with = |name: &str, value: &str| {
        let env = env(&[(name, value)]);
        load(&Inputs { file: Some(empty.path().into()), env, ..Inputs::default() })
    };
    let secret = file("rediss://:hush@cache/3\n");
    let by_file = secret.path().to_string_lossy().into_owned();
    for (name, value) in [
        ("REDIS_URL", "redis://:hush@cache:7000/1"),
        ("MESSAGE_HUB_REDIS__URL", "rediss://:hush@cache"),
        ("REDIS_URL_FILE", by_file.as_str()),
    ] {
        let loaded = with(name, value).unwrap();
        assert!(loaded.config.redis.url.is_some());
        assert!(!show(&loaded).contains("hush") && show(&loaded).contains("<redacted>"));
    }
    for wrong in ["http://:hush@cache", "hush", "redis://", "redis://:hush@cache/one", "amqp://hush@cache"] {
        let errors = with("REDIS_URL", wrong).unwrap_err();
        assert_eq!(errors.code(), code::CONFIG);
        let text = errors.to_string();
        assert!(text.contains("redis.url: must") && text.contains("REDIS_URL"), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn limits_and_redis_must_fit() {
    let empty = file("");
    for (setting, said) in [
        ("limits.caller_burst=5", "limits.caller_burst: needs limits.caller_per_second"),
        ("limits.target_per_second=1000001", "limits.target_per_second: must be between 0 and 1000000"),
        ("redis.prefix={x}", "redis.prefix: must be"),
        ("redis.timeout=1m", "redis.timeout: must be between"),
        ("redis.ca_file=/no/such", "redis.ca_file: /no/such cannot be read"),
        ("redis.ca_file=/dev/null", "redis.ca_file: needs a redis.url of rediss://"),
    ] {
        let flags = ServeFlags { set: vec![setting.to_owned()], ..ServeFlags::default() }.overrides();
        let inputs = Inputs { file: Some(empty.path().into()), flags, ..Inputs::default() };
        let text = load(&inputs).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }
}
