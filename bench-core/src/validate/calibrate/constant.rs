//! Constants of a machine description that are fitted.

use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::{ConstantId, Expense, Kind};
use ipu_sim::spec::quantity::Value;

use crate::error::Result;

/// A constant of kind `fitted`, in the unit that its description uses.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Section and name of the constant.
    pub id: ConstantId,
    /// Unit of the numbers.
    pub unit: &'static str,
    /// Value in the description.
    pub shipped: f64,
    /// Value that the fit found.
    pub best: f64,
    /// Least that the sources allow.
    pub low: f64,
    /// Most that the sources allow.
    pub high: f64,
}

/// The fitted constants of a machine that take memory, or those that take time.
///
/// # Panics
///
/// If a fitted constant has no range in its own unit, which a test of what ships refuses.
pub(super) fn fitted(machine: &MachineSpec, of_memory: bool) -> Vec<Constant> {
    let constants = machine.constants();
    constants
        .filter(|constant| constant.kind == Kind::Fitted)
        .filter(|constant| (constant.id.expense() == Expense::Memory) == of_memory)
        .map(|constant| {
            let id = constant.id;
            let Value::Quantity(value) = constant.value else {
                panic!("{id}: a fitted constant is a quantity");
            };
            let ends = constant.range.expect("a fitted constant has a range");
            for end in ends {
                assert_eq!(end.unit, value.unit, "{id}: the unit of its range");
            }
            let shipped = value.number();
            let [low, high] = ends.map(|end| end.number());
            Constant {
                id,
                unit: value.unit.name,
                shipped,
                best: shipped,
                low,
                high,
            }
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
