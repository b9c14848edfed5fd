//! The subresources of VMs and VMIs.
//!
//! Whether a verb is allowed is decided by api/ from the objects as they are now; nothing is cached.

mod options;
mod patches;
mod stream;
mod vm;
mod vmi;

use std::fmt::Debug;

use holdfast_api::error_status::ErrorStatus;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::DEADLINE;
use crate::answer::{Answer, Refusal, internal};
use crate::body;
use crate::server::Server;
use crate::verbs::{Kind, Verb};

use axum::extract::Request;

/// What a request is about.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The subresource.
    pub verb: Verb,
    /// The object's namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Call<'_> {
    /// 409 about the object.
    fn conflict(&self, why: &str) -> Refusal {
        ErrorStatus::conflict(self.verb.kind().singular(), self.name, why).into()
    }
}

/// Does what a user who may do so asks for.
pub async fn serve(server: &Server, call: Call<'_>, request: Request) -> Answer {
    match call.verb {
        Verb::Start | Verb::Stop | Verb::Restart => vm::serve(server, call, &body::read(request).await?).await,
        Verb::Pause | Verb::Unpause | Verb::SoftReboot | Verb::Reset => {
            vmi::command(server, call, body::read(request).await?).await
        }
        Verb::GuestOsInfo | Verb::UserList | Verb::FilesystemList => vmi::ask(server, call).await,
        Verb::VncScreenshot => vmi::screenshot(server, call, request.uri().query()).await,
        Verb::Console | Verb::Vnc => stream::open(server, call, request).await,
    }
}

/// An object; none where it is not there.
async fn get<K>(client: &Client, kind: Kind, namespace: &str, name: &str) -> Result<Option<K>, Refusal>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let failed = |why: &str| internal(&format!("unable to retrieve {} [{name}]: {why}", kind.singular()));
    match timeout(DEADLINE, api.get_opt(name)).await {
        Ok(Ok(object)) => Ok(object),
        Ok(Err(error)) => Err(failed(&holdfast_kubernetes::chain(&error))),
        Err(_) => Err(failed("no answer in time")),
    }
}
