//! Probes: how a guest is asked whether it is ready or alive.

use k8s_openapi::api::core::v1 as core;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A question that the guest is asked again and again; one of the four ways is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Answered well by a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<core::HTTPGetAction>,
    /// Answered well when the port accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<core::TCPSocketAction>,
    /// Answered well when the command, run by the guest agent, exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<core::ExecAction>,
    /// Answered well when the guest agent answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_agent_ping: Option<GuestAgentPing>,
    /// Seconds after the start before the first question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds from one question to the next; 10 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<i32>,
    /// Seconds until no answer counts as a bad one; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// Good answers in a row that it takes after a bad one; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<i32>,
    /// Bad answers in a row that it takes after a good one; 3 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<i32>,
}

/// Asks the guest agent for a sign of life. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuestAgentPing {}
