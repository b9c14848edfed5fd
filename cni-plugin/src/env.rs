//! The call as the environment tells it (CNI specification 1.1.0, section 2, "Parameters").
//!
//! What a verb needs must be there and well-formed; everything that is wrong is told at once, by its name.

use holdfast_agent_api::cni::{CniError, Verb, code};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answered here.
    Version,
    /// Answered by the agent.
    Agent(Verb),
}

/// One call's environment, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID, empty where the verb has none.
    pub container_id: String,
    /// CNI_NETNS; may be empty for DEL.
    pub netns: String,
    /// CNI_IFNAME, empty where the verb has none.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: String,
    /// CNI_NETNS_OVERRIDE.
    pub netns_override: bool,
}

impl Invocation {
    /// Reads the process's own environment.
    pub fn from_env() -> Result<Self, CniError> {
        Self::read(|name| std::env::var(name).unwrap_or_default())
    }

    fn read(var: impl Fn(&str) -> String) -> Result<Self, CniError> {
        let command = match var("CNI_COMMAND").as_str() {
            "ADD" => Command::Agent(Verb::Add),
            "DEL" => Command::Agent(Verb::Del),
            "CHECK" => Command::Agent(Verb::Check),
            "GC" => Command::Agent(Verb::Gc),
            "STATUS" => Command::Agent(Verb::Status),
            "VERSION" => Command::Version,
            "" => return Err(missing(&["CNI_COMMAND"])),
            other => {
                return Err(invalid("CNI_COMMAND", other, "ADD, DEL, CHECK, GC, STATUS or VERSION"));
            }
        };
        let absent: Vec<&str> = required(command).iter().copied().filter(|name| var(name).is_empty()).collect();
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let invocation = Self {
            command,
            container_id: var("CNI_CONTAINERID"),
            netns: var("CNI_NETNS"),
            ifname: var("CNI_IFNAME"),
            args: var("CNI_ARGS"),
            netns_override: matches!(var("CNI_NETNS_OVERRIDE").to_ascii_lowercase().as_str(), "1" | "true" | "t"),
        };
        if !required(command).contains(&"CNI_CONTAINERID") {
            return Ok(invocation);
        }
        if !is_container_id(&invocation.container_id) {
            let valid = "a letter or digit, then letters, digits, `_`, `.` and `-`";
            return Err(invalid("CNI_CONTAINERID", &invocation.container_id, valid));
        }
        if !is_ifname(&invocation.ifname) {
            let valid = "1 to 15 bytes without `/`, `:`, white space and control characters, and neither `.` nor `..`";
            return Err(invalid("CNI_IFNAME", &invocation.ifname, valid));
        }
        Ok(invocation)
    }
}

fn required(command: Command) -> &'static [&'static str] {
    match command {
        Command::Agent(Verb::Add | Verb::Check) => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        Command::Agent(Verb::Del) => &["CNI_CONTAINERID", "CNI_IFNAME"],
        Command::Agent(Verb::Gc) => &["CNI_PATH"],
        Command::Agent(Verb::Status) | Command::Version => &[],
    }
}

fn is_container_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_ifname(name: &str) -> bool {
    name.parse::<holdfast_agent_api::cni::IfName>().is_ok()
}

fn missing(names: &[&str]) -> CniError {
    CniError {
        code: code::ENVIRONMENT,
        msg: format!("required environment variables are missing: {}", names.join(", ")),
        details: String::new(),
    }
}

fn invalid(name: &str, value: &str, valid: &str) -> CniError {
    CniError {
        code: code::ENVIRONMENT,
        msg: format!("invalid environment variable {name}: `{value}`"),
        details: format!("it must be: {valid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Invocation, CniError> {
        Invocation::read(|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()).unwrap_or_default()
        })
    }

    const ADD: &[(&str, &str)] =
        &[("CNI_IFNAME", "eth0"), ("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/x")];

    #[test]
    fn a_whole_environment_is_read() {
        let invocation = read(ADD).unwrap();
        assert_eq!(invocation.command, Command::Agent(Verb::Add));
        assert_eq!((invocation.container_id.as_str(), invocation.ifname.as_str()), ("c1", "eth0"));
        assert!(!invocation.netns_override);
    }

    #[test]
    fn each_verb_asks_for_its_own() {
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_NETNS", "/x")]).unwrap_err();
        assert_eq!((error.code, error.msg.contains("CNI_CONTAINERID, CNI_IFNAME")), (4, true), "{}", error.msg);
        assert!(read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")]).is_ok());
        assert!(read(&[("CNI_COMMAND", "GC")]).unwrap_err().msg.contains("CNI_PATH"));
        assert!(read(&[("CNI_COMMAND", "STATUS")]).is_ok());
        assert!(read(&[]).unwrap_err().msg.contains("CNI_COMMAND"));
        assert!(read(&[("CNI_COMMAND", "add")]).unwrap_err().msg.contains("`add`"));
    }

    #[test]
    fn malformed_values_are_named() {
        for (name, value) in [
            ("CNI_IFNAME", "0123456789abcdef"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_CONTAINERID", "-x"),
            ("CNI_CONTAINERID", "../x"),
        ] {
            let mut vars = vec![(name, value)];
            vars.extend(ADD);
            let error = read(&vars).unwrap_err();
            assert_eq!(error.code, 4);
            assert!(error.msg.contains(name) && error.msg.contains(value), "{}", error.msg);
        }
    }
}
