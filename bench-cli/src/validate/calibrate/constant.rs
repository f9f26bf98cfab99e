//! Constants of a machine description that are fitted.

use anyhow::{Context, Result, ensure};
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::Kind;

/// A constant of kind `fitted`, in the unit that its description uses.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Section and name.
    pub key: String,
    /// Unit of the numbers.
    pub unit: String,
    /// As the description has it.
    pub shipped: f64,
    /// As the fit has it.
    pub best: f64,
    /// Least that the sources allow.
    pub low: f64,
    /// Most that the sources allow.
    pub high: f64,
}

/// The fitted constants of a machine whose section is `memory` or isn't.
///
/// # Errors
///
/// A description without a range for a fitted constant, or with one in another unit.
pub(super) fn fitted(machine: &MachineSpec, of_memory: bool) -> Result<Vec<Constant>> {
    let constants = machine.constants.iter();
    constants
        .filter(|constant| constant.kind == Kind::Fitted)
        .filter(|constant| (constant.section() == "memory") == of_memory)
        .map(|constant| {
            let (shipped, unit) = quantity(&constant.value)?;
            let range = constant.range.as_ref();
            let [low, high] = range.with_context(|| format!("{} has no range", constant.key))?;
            let bound = |text| {
                let (number, bound) = quantity(text)?;
                ensure!(
                    bound == unit,
                    "{}: expected {unit}, got `{text}`",
                    constant.key
                );
                Ok(number)
            };
            Ok(Constant {
                key: constant.key.clone(),
                unit: unit.into(),
                shipped,
                best: shipped,
                low: bound(low)?,
                high: bound(high)?,
            })
        })
        .collect()
}

/// `64 cycles` as a number and its unit.
fn quantity(text: &str) -> Result<(f64, &str)> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = number.parse();
    Ok((
        number.with_context(|| format!("`{text}` is no quantity"))?,
        unit,
    ))
}

/// The shipped machine `system` with other values, rounded to whole ones, of some constants.
///
/// # Errors
///
/// As [`MachineSpec::from_toml`].
pub(super) fn with(system: &str, values: &[(&Constant, f64)]) -> Result<MachineSpec> {
    let mut text = format!("name = \"{system}\"\nbase = [\"{system}\"]\n");
    for (constant, value) in values {
        let (section, name) = constant.key.split_once('.').unwrap_or(("", &constant.key));
        let unit = &constant.unit;
        text += &format!(
            "{section}.{name} = {{ value = \"{} {unit}\", kind = \"fitted\", source = \"fit\" }}\n",
            value.round()
        );
    }
    Ok(MachineSpec::from_toml(&text)?)
}
