//! The eighteen runs of the published benchmark, compiled, weighed and timed.

use bench_cli::clock::Date;
use bench_cli::run::simulate;
use bench_cli::suite::{Outcome, run_one, runs};
use bench_core::explain::mechanism::Mechanism;

#[test]
fn all_eighteen_runs_fit_and_larger_pods_are_faster() {
    let mut throughput = std::collections::BTreeMap::new();
    for run in &runs() {
        let entry = run_one(run, Date::now(), simulate);
        let report = match entry.outcome {
            Outcome::Report { report } => report,
            Outcome::Failed { error } => panic!("{}: {error}", run.name),
        };
        let metrics = report.metrics;
        assert!(metrics.fits, "{}: {:?}", run.name, metrics.refusal);
        for ipu in &metrics.time.ipus {
            let other = ipu.by_mechanism.get(&Mechanism::Other);
            assert_eq!(other, None, "{}: cycles without a mechanism", run.name);
        }
        throughput.insert(run.name.clone(), metrics.throughput_sequences_per_second);
    }
    assert_eq!(throughput.len(), 18);
    // Four times the replicas, the same global batch: between three and four times as fast,
    // since filling and flushing the pipeline and the update don't get shorter.
    let scaling = throughput["2-large-128-pod64"] / throughput["1-large-128-pod16"];
    assert!((3.0..4.0).contains(&scaling), "{scaling}");
    // Larger micro-batches use the tiles better.
    let batched = throughput["10-base-3-minimum-latency-128-b64"];
    assert!(batched > 2.0 * throughput["10-base-3-minimum-latency-128-b1"]);
}
