//! Which objects a command line names: `KIND[,KIND...] [NAME...]`, or `KIND/NAME...`.

use anyhow::{Result, bail};

use crate::kinds::{Kind, named, one};

/// A kind, and the names of its objects; all of them where there is none.
#[derive(Clone, Debug)]
pub struct Target {
    /// The kind.
    pub kind: &'static Kind,
    /// The names.
    pub names: Vec<String>,
}

/// Reads what a command line names. `verb` is what shall be done with it.
pub fn targets(verb: &str, arguments: &[String]) -> Result<Vec<Target>> {
    let Some((first, names)) = arguments.split_first() else {
        bail!("error: You must specify the type of resource to {verb}, such as vm or vmi");
    };
    if !arguments.iter().any(|argument| argument.contains('/')) {
        let target = |kind| Target { kind, names: names.to_vec() };
        return Ok(named(first)?.into_iter().map(target).collect());
    }
    let target = |argument: &String| match argument.split_once('/') {
        Some((kind, name)) if !name.is_empty() && !name.contains('/') => {
            Ok(Target { kind: one(kind)?, names: vec![name.to_owned()] })
        }
        _ => bail!("error: `{argument}` is not of the form KIND/NAME, as another argument is"),
    };
    arguments.iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Vec<(String, Vec<String>)>> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Ok(targets("get", &arguments)?.into_iter().map(|target| (target.kind.full_name(), target.names)).collect())
    }

    #[test]
    fn both_forms_are_read() {
        let vm = |names: &[&str]| {
            ("virtualmachine.kubevirt.io".to_owned(), names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&["vm"]).unwrap(), [vm(&[])]);
        assert_eq!(read(&["vm", "a", "b"]).unwrap(), [vm(&["a", "b"])]);
        assert_eq!(read(&["vm/a", "vms/b"]).unwrap(), [vm(&["a"]), vm(&["b"])]);
        for wrong in [&[][..], &["vm", "vm/a"], &["vm/"], &["vm/a/b"], &["vm,vmi/a"], &["x/a"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
