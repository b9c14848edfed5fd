//! SSH keys and passwords that are put into a guest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One kind of access; one of the two is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessCredential {
    /// SSH keys that may log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_public_key: Option<SSHPublicKeyAccessCredential>,
    /// Passwords of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_password: Option<UserPasswordAccessCredential>,
}

/// A Secret with the credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessCredentialSecretSource {
    /// Name of a Secret of the same namespace. For keys each entry is one or more public keys; for
    /// passwords each key is a user.
    pub secret_name: String,
}

/// SSH keys, and how they get into the guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SSHPublicKeyAccessCredential {
    /// Where the keys are.
    pub source: SSHPublicKeyAccessCredentialSource,
    /// How they get into the guest.
    pub propagation_method: SSHPublicKeyAccessCredentialPropagationMethod,
}

/// Where SSH keys are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SSHPublicKeyAccessCredentialSource {
    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<AccessCredentialSecretSource>,
}

/// How SSH keys get into the guest; one is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SSHPublicKeyAccessCredentialPropagationMethod {
    /// By cloud-init's config drive, once at boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_drive: Option<ConfigDriveSSHPublicKeyAccessCredentialPropagation>,
    /// By cloud-init's NoCloud data, once at boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cloud: Option<NoCloudSSHPublicKeyAccessCredentialPropagation>,
    /// By the guest agent, whenever the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_guest_agent: Option<QemuGuestAgentSSHPublicKeyAccessCredentialPropagation>,
}

/// Keys by cloud-init's config drive. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigDriveSSHPublicKeyAccessCredentialPropagation {}

/// Keys by cloud-init's NoCloud data. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoCloudSSHPublicKeyAccessCredentialPropagation {}

/// Keys by the guest agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QemuGuestAgentSSHPublicKeyAccessCredentialPropagation {
    /// Users of the guest whose keys are kept.
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
}

/// Passwords, and how they get into the guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPasswordAccessCredential {
    /// Where the passwords are.
    pub source: UserPasswordAccessCredentialSource,
    /// How they get into the guest.
    pub propagation_method: UserPasswordAccessCredentialPropagationMethod,
}

/// Where passwords are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPasswordAccessCredentialSource {
    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<AccessCredentialSecretSource>,
}

/// How passwords get into the guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPasswordAccessCredentialPropagationMethod {
    /// By the guest agent, whenever the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_guest_agent: Option<QemuGuestAgentUserPasswordAccessCredentialPropagation>,
}

/// Passwords by the guest agent. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QemuGuestAgentUserPasswordAccessCredentialPropagation {}
