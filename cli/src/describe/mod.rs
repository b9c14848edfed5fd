//! `describe`: all that is known of a VM or VMI, on one sheet.

mod machine;
mod parts;
mod sheet;
#[cfg(test)]
mod tests;
mod value;

use std::process::ExitCode;

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use crate::client::{CallError, Client};
use crate::kinds::Kind;
use crate::out::print;
use crate::target::targets;
use value::text;

/// Which kind a sheet is about.
#[derive(Clone, Copy)]
enum Machine {
    Vm,
    Vmi,
}

impl Machine {
    fn of(kind: &Kind) -> Option<Self> {
        match kind.full_name().as_str() {
            "virtualmachine.kubevirt.io" => Some(Self::Vm),
            "virtualmachineinstance.kubevirt.io" => Some(Self::Vmi),
            _ => None,
        }
    }
}

/// Shows a sheet for each object that the arguments name.
pub async fn describe(client: &Client, namespace: &str, arguments: &[String]) -> Result<ExitCode> {
    let mut sheets = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for target in targets("describe", arguments)? {
        let Some(machine) = Machine::of(target.kind) else {
            bail!("error: describe knows vm and vmi; of a {}, use `get -o yaml`", target.kind.full_name());
        };
        let names = match target.names.is_empty() {
            true => all_names(client, &target.kind.path(Some(namespace), None)).await,
            false => Ok(target.names),
        };
        for name in names.map_err(|error| anyhow::anyhow!(error.kubectl_text()))? {
            let path = target.kind.path(Some(namespace), Some(&name));
            match sheet(client, namespace, machine, &path).await {
                Ok(sheet) => sheets.push(sheet),
                Err(error) => {
                    eprintln!("{}", error.kubectl_text());
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    if sheets.is_empty() && code == ExitCode::SUCCESS {
        eprintln!("No resources found in {namespace} namespace.");
    }
    print(&sheets.join("\n\n"))?;
    Ok(code)
}

async fn all_names(client: &Client, path: &str) -> Result<Vec<String>, CallError> {
    let list = client.get(path).await?;
    Ok(value::items(&list, "/items").map(|object| text(object, "/metadata/name")).collect())
}

async fn sheet(client: &Client, namespace: &str, machine: Machine, path: &str) -> Result<String, CallError> {
    let object = client.get(path).await?;
    let uid = text(&object, "/metadata/uid");
    let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}");
    let events = client.get(&path).await?;
    let now = Timestamp::now();
    match machine {
        Machine::Vmi => Ok(machine::vmi(&object, &events, now)),
        Machine::Vm => {
            let name = text(&object, "/metadata/name");
            let path = format!("/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}");
            let vmi = match client.get(&path).await {
                Err(error) if error.is_not_found() => Value::Null,
                vmi => vmi?,
            };
            Ok(machine::vm(&object, &vmi, &events, now))
        }
    }
}
