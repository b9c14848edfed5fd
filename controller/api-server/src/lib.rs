//! virt-api.

/// Runs virt-api until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run() -> anyhow::Result<()> {
    anyhow::bail!("virt-api is not here yet")
}
