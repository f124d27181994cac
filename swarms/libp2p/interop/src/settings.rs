//! The parameters of a test: environment variables of the libp2p project's harness, in both of its forms.
//!
//! The current form is that of the repository `unified-testing`: upper-case names, and a Redis server that all tests share,
//! so that `TEST_KEY` precedes each key. The older form is that of `test-plans`: lower-case names, and a Redis server for
//! each test. Where `TEST_KEY` is set, the current form applies.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::Failure;
use crate::link::Link;

/// Which side of the connection this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dials the address that the listener published, measures, and ends.
    Dialler,
    /// Listens, publishes its address, and serves until it is stopped.
    Listener,
}

/// The form of the environment variables, which decides the form of the result as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// That of `unified-testing`; the result is YAML.
    Current,
    /// That of `test-plans`; the result is JSON.
    Older,
}

/// The parameters of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The form of the environment variables.
    pub form: Form,
    /// The side that this process is.
    pub role: Role,
    /// The address of the Redis server, `host:port`.
    pub redis: String,
    /// The key under which the listener publishes its address.
    pub key: String,
    /// What connects the two sides.
    pub link: Link,
    /// The address that the listener binds.
    pub ip: IpAddr,
    /// Timeout of the dialler, and in the older form the time after which the listener fails. Default: 180 s.
    pub timeout: Duration,
    /// Whether events of the host are written to standard error.
    pub debug: bool,
}

impl Settings {
    /// Reads the parameters from the environment of this process.
    ///
    /// # Errors
    /// A text that names the variable that is missing or invalid.
    pub fn from_env() -> Result<Self, Failure> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads the parameters from variables.
    ///
    /// # Errors
    /// A text that names the variable that is missing or invalid.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let test_key = variable("TEST_KEY");
        let form = if test_key.is_some() {
            Form::Current
        } else {
            Form::Older
        };
        let name = |name: Name| match form {
            Form::Current => name.current,
            Form::Older => name.older,
        };
        let optional = |of: Name| variable(name(of)).filter(|value| !value.is_empty());
        let required = |of: Name| optional(of).ok_or_else(|| format!("{} is not set", name(of)));
        let role = match required(IS_DIALER)?.as_str() {
            "true" => Role::Dialler,
            "false" => Role::Listener,
            other => return Err(invalid(name(IS_DIALER), other, "true or false")),
        };
        let link = Link::of_names(
            &required(TRANSPORT)?,
            optional(SECURITY).as_deref(),
            optional(MUXER).as_deref(),
        )?;
        let redis = match form {
            Form::Current => required(REDIS)?,
            Form::Older => optional(REDIS).unwrap_or_else(|| "redis:6379".to_owned()),
        };
        let redis = if redis.contains(':') {
            redis
        } else {
            format!("{redis}:6379")
        };
        let ip = match optional(IP) {
            None => Ipv4Addr::UNSPECIFIED.into(),
            Some(ip) => ip.parse().map_err(|_| invalid(name(IP), &ip, "an IP address"))?,
        };
        let timeout = match optional(TIMEOUT) {
            None => 180,
            Some(seconds) => seconds
                .parse()
                .map_err(|_| invalid(name(TIMEOUT), &seconds, "a number of seconds"))?,
        };
        let key = match test_key {
            Some(key) => format!("{key}_listener_multiaddr"),
            None => "listenerAddr".to_owned(),
        };
        Ok(Self {
            form,
            role,
            redis,
            key,
            link,
            ip,
            timeout: Duration::from_secs(timeout),
            debug: optional(DEBUG).as_deref() == Some("true"),
        })
    }
}

/// The name of a variable in both forms.
#[derive(Clone, Copy)]
struct Name {
    current: &'static str,
    older: &'static str,
}

const fn named(current: &'static str, older: &'static str) -> Name {
    Name { current, older }
}

const IS_DIALER: Name = named("IS_DIALER", "is_dialer");
const REDIS: Name = named("REDIS_ADDR", "redis_addr");
const TRANSPORT: Name = named("TRANSPORT", "transport");
const SECURITY: Name = named("SECURE_CHANNEL", "security");
const MUXER: Name = named("MUXER", "muxer");
const IP: Name = named("LISTENER_IP", "ip");
const TIMEOUT: Name = named("TEST_TIMEOUT_SECS", "test_timeout_seconds");
const DEBUG: Name = named("DEBUG", "debug");

fn invalid(name: &str, value: &str, expected: &str) -> Failure {
    format!("{name} is {value:?}, and must be {expected}").into()
}

#[cfg(test)]
mod tests {
    use p2p_libp2p::{Muxer, Security};

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| variables.iter().find(|(of, _)| *of == name);
        Settings::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
            .map_err(|error| error.to_string())
    }

    const CURRENT: [(&str, &str); 8] = [
        ("IS_DIALER", "false"),
        ("REDIS_ADDR", "transport-redis:6379"),
        ("TEST_KEY", "a5b50d5e"),
        ("TRANSPORT", "tcp"),
        ("SECURE_CHANNEL", "noise"),
        ("MUXER", "yamux"),
        ("LISTENER_IP", "0.0.0.0"),
        ("DEBUG", "false"),
    ];

    #[test]
    fn the_current_form_shares_a_server_and_names_its_keys() {
        let settings = read(&CURRENT).unwrap();
        assert_eq!(settings.form, Form::Current);
        assert_eq!(settings.role, Role::Listener);
        assert_eq!(settings.key, "a5b50d5e_listener_multiaddr");
        assert_eq!(settings.redis, "transport-redis:6379");
        assert_eq!(settings.link, Link::Tcp(Security::Noise, Muxer::Yamux));
        assert_eq!(settings.timeout, Duration::from_mins(3));
    }

    #[test]
    fn the_older_form_has_a_server_of_its_own_and_defaults() {
        let settings = read(&[("transport", "quic-v1"), ("is_dialer", "true")]).unwrap();
        assert_eq!(settings.form, Form::Older);
        assert_eq!(settings.role, Role::Dialler);
        assert_eq!(settings.key, "listenerAddr");
        assert_eq!(settings.redis, "redis:6379");
        assert_eq!(settings.link, Link::Quic);
        let older = [
            ("transport", "tcp"),
            ("is_dialer", "true"),
            ("security", "tls"),
            ("muxer", "yamux"),
        ];
        let settings = read(
            &[
                &older[..],
                &[("test_timeout_seconds", "7"), ("redis_addr", "[::1]:1")],
            ]
            .concat(),
        );
        let settings = settings.unwrap();
        assert_eq!(settings.link, Link::Tcp(Security::Tls, Muxer::Yamux));
        assert_eq!(settings.timeout, Duration::from_secs(7));
    }

    #[test]
    fn an_error_names_the_variable() {
        for missing in ["IS_DIALER", "REDIS_ADDR", "TRANSPORT"] {
            let rest: Vec<_> = CURRENT.into_iter().filter(|(name, _)| *name != missing).collect();
            assert_eq!(read(&rest).unwrap_err(), format!("{missing} is not set"));
        }
        for (name, value) in [("IS_DIALER", "yes"), ("LISTENER_IP", "localhost")] {
            let changed = CURRENT.map(|variable| {
                if variable.0 == name {
                    (name, value)
                } else {
                    variable
                }
            });
            let error = read(&changed).unwrap_err();
            assert!(error.starts_with(&format!("{name} is {value:?}")), "{error}");
        }
    }
}
