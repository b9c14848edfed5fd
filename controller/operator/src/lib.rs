//! virt-operator.

/// Runs virt-operator until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run() -> anyhow::Result<()> {
    anyhow::bail!("virt-operator is not here yet")
}
