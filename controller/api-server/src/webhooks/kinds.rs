//! Of the kinds that api/ decides about.

use holdfast_api::admit::{self, Operation, User, Webhook};
use holdfast_api::error_status::ErrorStatus;
use jiff::Timestamp;
use tokio::time::timeout;
use uuid::Uuid;

use super::others::Known;
use super::review::{Allowed, Review};
use crate::server::Server;

/// How often a decision may ask for more: it may need an instancetype's revision, and what that names, and no more.
const ROUNDS: usize = 8;
/// The API server waits for 10 s.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(8);

/// Decides.
pub async fn decide(server: &Server, webhook: Webhook, review: &Review) -> Result<Allowed, ErrorStatus> {
    let operation = operation(&review.operation)?;
    let settings = server.settings.borrow().clone();
    let mut known = Known::default();
    for _ in 0..ROUNDS {
        let verdict = {
            let review = admit::Review {
                webhook,
                operation,
                name: &review.name,
                namespace: &review.namespace,
                object: &review.object,
                old: &review.old_object,
                user: User { name: &review.user_info.username, groups: &review.user_info.groups },
                install_namespace: &server.namespace,
            };
            admit::admit(&review, &known, &settings.cluster, &mut |_| Uuid::new_v4(), Timestamp::now())
        };
        match timeout(DEADLINE, known.look(&server.client)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                return verdict.map(|allowed| Allowed { object: allowed.object, warnings: allowed.warnings });
            }
            Ok(Err(error)) => return Err(ErrorStatus::internal(&holdfast_kubernetes::chain(&error))),
            Err(_) => return Err(ErrorStatus::internal("the API server did not answer in time")),
        }
    }
    Err(ErrorStatus::internal("the decision asked for more and more objects"))
}

fn operation(text: &str) -> Result<Operation, ErrorStatus> {
    match text {
        "CREATE" => Ok(Operation::Create),
        "UPDATE" => Ok(Operation::Update),
        "DELETE" => Ok(Operation::Delete),
        "CONNECT" => Ok(Operation::Connect),
        other => Err(ErrorStatus::bad_request(&format!("operation `{other}` is unknown"))),
    }
}
