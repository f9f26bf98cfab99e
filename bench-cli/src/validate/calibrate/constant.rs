//! Constants of a machine description that are fitted.

use anyhow::{Context, Result, ensure};
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::{ConstantId, Expense, Kind};
use ipu_sim::spec::quantity::Value;

/// A constant of kind `fitted`, in the unit that its description uses.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Which one.
    pub id: ConstantId,
    /// Unit of the numbers.
    pub unit: &'static str,
    /// As the description has it.
    pub shipped: f64,
    /// As the fit has it.
    pub best: f64,
    /// Least that the sources allow.
    pub low: f64,
    /// Most that the sources allow.
    pub high: f64,
}

/// The fitted constants of a machine that take memory, or those that take time.
///
/// # Errors
///
/// A description without a range for a fitted constant, or with one in another unit.
pub(super) fn fitted(machine: &MachineSpec, of_memory: bool) -> Result<Vec<Constant>> {
    let constants = machine.constants();
    constants
        .filter(|constant| constant.kind == Kind::Fitted)
        .filter(|constant| (constant.id.expense() == Expense::Memory) == of_memory)
        .map(|constant| {
            let id = constant.id;
            let Value::Quantity(value) = constant.value else {
                anyhow::bail!("{id}: `{}` is no quantity", constant.value);
            };
            let ends = constant
                .range
                .with_context(|| format!("{id} has no range"))?;
            for end in ends {
                let unit = value.unit.name;
                ensure!(end.unit == value.unit, "{id}: expected {unit}, got `{end}`");
            }
            let shipped = value.number();
            let [low, high] = ends.map(|end| end.number());
            Ok(Constant {
                id,
                unit: value.unit.name,
                shipped,
                best: shipped,
                low,
                high,
            })
        })
        .collect()
}

/// The shipped machine `system` with other values, rounded to whole ones, of some constants.
///
/// # Errors
///
/// As [`MachineSpec::with`].
pub(super) fn with(system: &str, values: &[(&Constant, f64)]) -> Result<MachineSpec> {
    let values = values.iter().map(|(constant, value)| {
        let text = format!("{} {}", value.round(), constant.unit);
        (constant.id, text)
    });
    Ok(MachineSpec::shipped(system)?.with_all(values, Kind::Fitted, "fit")?)
}
