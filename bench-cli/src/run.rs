//! One run: from a request to its metrics.

use crate::metrics::Metrics;
use crate::request::RunRequest;

/// Builds the model, compiles it for the machine and simulates one step.
///
/// # Errors
///
/// Always, for now: the compiler is not connected.
pub fn simulate(request: &RunRequest) -> anyhow::Result<Metrics> {
    Err(anyhow::anyhow!(
        "cannot simulate on {}: not wired yet",
        request.machine.name
    ))
}
