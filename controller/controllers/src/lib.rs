//! virt-controller.

/// Runs virt-controller until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run() -> anyhow::Result<()> {
    anyhow::bail!("virt-controller is not here yet")
}
