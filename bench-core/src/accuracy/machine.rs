//! How far the constants of a machine are from those of the machines that were measured.

use std::collections::{BTreeMap, BTreeSet};

use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::{Class, Constant, ConstantId, Expense};
use ipu_sim::spec::quantity::Value;

/// What features of a run say already: sizes of the chip and of the system. Those of matrix units
/// for other types than FP16.16 are here since a run with such types has a choice that was never
/// measured.
const IN_FEATURES: [ConstantId; 9] = [
    ConstantId::ChipClock,
    ConstantId::ChipTiles,
    ConstantId::ChipAmpUnitsF16F16,
    ConstantId::ChipAmpUnitsF16F32,
    ConstantId::ChipAmpUnitsF32F32,
    ConstantId::SystemIpus,
    ConstantId::SystemIpusPerRack,
    ConstantId::SystemWiring,
    // One for each rack.
    ConstantId::HostHosts,
];

/// The constants of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constants(BTreeMap<ConstantId, Value>);

impl Constants {
    /// Constants of `machine` that no feature of a run stands for.
    #[must_use]
    pub fn of(machine: &MachineSpec) -> Self {
        let counts = |constant: &Constant<'_>| {
            let takes_time = match constant.id.expense() {
                // Whether a run fits is looked at by itself.
                Expense::Memory | Expense::Nothing => false,
                // Nothing goes through gateways inside a rack.
                Expense::GatewayBytes | Expense::GatewayCrossings => machine.n_racks() > 1,
                _ => true,
            };
            takes_time && !IN_FEATURES.contains(&constant.id)
        };
        let constants = machine.constants().filter(counts);
        Self(
            constants
                .map(|constant| (constant.id, constant.value))
                .collect(),
        )
    }

    /// How far they are from those of the measured machines: the octaves by which the farthest of
    /// them lies outside, one for what is no number or none; with what it is that sets them apart.
    ///
    /// Of a time that is shorter, or of bytes at a higher rate, a step can at most lack all it takes,
    /// so that neither is ever farther than one.
    pub(super) fn distance(&self, measured: &[Self]) -> (f64, Vec<String>) {
        let mut distance = 0.0_f64;
        let mut reasons = Vec::new();
        let mut unknown: BTreeSet<&str> = BTreeSet::new();
        for (id, value) in &self.0 {
            let known = measured.iter().filter_map(|machine| machine.0.get(id));
            let known: Vec<&Value> = known.collect();
            if known.contains(&value) {
                continue;
            }
            let own = value.magnitude().filter(|size| *size > 0.0);
            let sizes = known.iter().map(|value| value.magnitude());
            let sizes: Option<Vec<f64>> = sizes.collect();
            let octaves = match (own, sizes.as_deref()) {
                (Some(own), Some(sizes @ [_, ..])) => {
                    let least = sizes.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = sizes.iter().copied().fold(0.0, f64::max);
                    let lessens = match id.class() {
                        Class::Time => own < least,
                        Class::Rate => own > most,
                        Class::Size | Class::Count | Class::Choice => false,
                    };
                    match libm::log2(own / own.clamp(least, most)).abs() {
                        octaves if lessens => octaves.min(1.0),
                        octaves if octaves.is_finite() => octaves,
                        _ => 1.0,
                    }
                }
                _ => 1.0,
            };
            if octaves > 0.0 {
                distance = distance.max(octaves);
                if known.is_empty() {
                    unknown.insert(id.section());
                    continue;
                }
                let known: BTreeSet<String> = known.into_iter().map(Value::to_string).collect();
                let known: Vec<String> = known.into_iter().collect();
                reasons.push(format!("{id}: {value}, measured {}", known.join(" and ")));
            }
        }
        let unknown = unknown.into_iter();
        reasons.extend(unknown.map(|section| format!("{section}: never measured")));
        (distance, reasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod16(more: &str) -> Constants {
        let text = format!("name = \"mine\"\nbase = [\"mk2-pod16\"]\n{more}");
        Constants::of(&MachineSpec::from_toml(&text).unwrap())
    }

    #[test]
    fn a_machine_is_as_far_as_its_farthest_constant() {
        let check = |more: &str, octaves: f64, expected: &[&str]| {
            let (distance, reasons) = pod16(more).distance(&[pod16("")]);
            assert!((distance - octaves).abs() < 1e-9, "{more}: {distance}");
            assert_eq!(reasons, expected, "{more}");
        };
        let constant = |key: &str, value: &str| {
            format!("{key} = {{ value = {value}, kind = \"assumed\", source = \"a test\" }}\n")
        };
        check("", 0.0, &[]);
        let slow = constant("chip.exchange_rate", "\"1 B/cycle\"");
        check(
            &slow,
            2.0,
            &["chip.exchange_rate: 1 B/cycle, measured 4 B/cycle"],
        );
        let workers = constant("chip.workers", "12");
        check(
            &(slow + &workers),
            2.0,
            &[
                "chip.exchange_rate: 1 B/cycle, measured 4 B/cycle",
                "chip.workers: 12, measured 6",
            ],
        );
        // No number of octaves leads away from none.
        let longer = constant("exchange.phase_extra", "\"100 cycles\"");
        check(
            &longer,
            1.0,
            &["exchange.phase_extra: 100 cycles, measured 0 cycles"],
        );
        let short = constant("host.latency", "\"1 ns\"");
        check(&short, 1.0, &["host.latency: 1 ns, measured 15 us"]);
        let wide = constant("links.usable", "\"15.9 GB/s\"");
        check(
            &wide,
            libm::log2(15.9 / 13.25),
            &["links.usable: 15.9 GB/s, measured 13.25 GB/s"],
        );
        let fast = constant("chip.exchange_rate", "\"16 B/cycle\"");
        check(
            &fast,
            1.0,
            &["chip.exchange_rate: 16 B/cycle, measured 4 B/cycle"],
        );
        // Features of a run say this, or it takes no time.
        check(&constant("chip.clock", "\"1.85 GHz\""), 0.0, &[]);
        check(&constant("memory.vertex_state_base", "\"16 B\""), 0.0, &[]);
        check(&constant("streaming_memory.capacity", "\"1 GB\""), 0.0, &[]);
        check(&constant("gateway.port", "\"1 GB/s\""), 0.0, &[]);
    }

    #[test]
    fn gateways_were_never_measured() {
        let racks = Constants::of(&MachineSpec::shipped("mk2-pod128").unwrap());
        let (distance, reasons) = racks.distance(&[pod16("")]);
        assert!((distance - 1.0).abs() < 1e-9, "{distance}");
        assert_eq!(reasons, ["gateway: never measured"]);
    }
}
