//! What is served about the API itself: discovery, OpenAPI, version, health.

pub mod discovery;
pub mod health;
pub mod openapi;
