//! Which machine to simulate.
//!
//! The shipped ones come with the simulator (`configs/systems/NAME.toml`); a user's own is a file
//! of the same form. Either is read here, before any work starts.

use std::io::ErrorKind;
use std::path::Path;

use comfy_table::{Table, presets};
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::shipped::machines;

use crate::args::json::SavedMachine;
use crate::config::options::{Device, Generation};
use crate::{Error, Result, text};

/// A machine chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Name of a shipped machine, or path of a description, as given.
    pub name: String,
    /// Description of the machine.
    pub spec: MachineSpec,
}

/// Which machine is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineRequest<'a> {
    /// None: the smallest that has enough IPUs.
    Nothing,
    /// The one that `--system` names.
    Named(&'a str),
    /// The one of a report.
    Saved(&'a SavedMachine),
}

/// The machine for a run on `ipus` IPUs: the one that is `asked` for, or the smallest of the
/// generation that `device` asks for; with as many tiles as it asks for.
///
/// # Errors
///
/// As [`choose`]; a machine named beside a generation; more tiles than the machine has.
pub fn choose_for(asked: MachineRequest<'_>, device: &Device, ipus: u32) -> Result<Machine> {
    let mut machine = match (asked, device.version) {
        (MachineRequest::Named(_), Some(_)) => {
            return Err(Error::NotAllowedWith {
                option: "--device-version",
                other: "--system",
            });
        }
        (MachineRequest::Saved(saved), _) => {
            let machine = restored(saved)?;
            check_size(&machine, ipus)?;
            machine
        }
        (MachineRequest::Nothing, Some(version)) => smallest(version, ipus)?,
        (MachineRequest::Nothing, None) => choose(None, ipus)?,
        (MachineRequest::Named(name), None) => choose(Some(name), ipus)?,
    };
    // A report's machine has them already.
    let tiles = device.tiles;
    let tiles = tiles.filter(|tiles| *tiles != machine.spec.tile.tiles_per_ipu);
    if let Some(tiles) = tiles {
        let most = machine.spec.tile.tiles_per_ipu;
        let scaled = machine.spec.scaled_down(machine.spec.n_ipus, tiles);
        machine.spec = match scaled {
            Ok(spec) if tiles <= most => spec,
            _ => {
                return Err(Error::OutOfRange {
                    option: "--device-tiles",
                    expected: format!(
                        "a count of tiles that {} can have, up to {most}",
                        machine.name
                    ),
                    found: tiles.to_string(),
                });
            }
        };
        machine.name = format!("{} with {tiles} tiles an IPU", machine.name);
    }
    Ok(machine)
}

/// The machine that `--system` names, or the smallest Mk2 one with `ipus` IPUs.
///
/// A name that ships wins over a file of that name.
///
/// # Errors
///
/// A name that neither ships nor is a readable file; a description with mistakes; a system with
/// fewer IPUs.
pub fn choose(named: Option<&str>, ipus: u32) -> Result<Machine> {
    let Some(name) = named else {
        return smallest(Generation::Mk2, ipus);
    };
    let machine = if machines().contains(&name) {
        shipped(name)
    } else {
        from_file(name)?
    };
    check_size(&machine, ipus)?;
    Ok(machine)
}

fn check_size(machine: &Machine, ipus: u32) -> Result<()> {
    match machine.spec.n_ipus >= ipus {
        true => Ok(()),
        false => Err(Error::SystemTooSmall {
            system: machine.name.clone(),
            available: machine.spec.n_ipus.into(),
            needed: ipus.into(),
            enough: enough_like(&machine.name, ipus),
        }),
    }
}

/// The machine of a report: the shipped one of that name, or if that has changed since, what the
/// report says.
fn restored(saved: &SavedMachine) -> Result<Machine> {
    if machines().contains(&saved.name.as_str()) {
        let shipped = shipped(&saved.name);
        if shipped.spec.to_toml() == saved.description {
            return Ok(shipped);
        }
    }
    let spec = MachineSpec::from_toml(&saved.description).map_err(|source| Error::System {
        name: saved.name.clone(),
        source: Box::new(source),
    })?;
    Ok(Machine {
        name: saved.name.clone(),
        spec,
    })
}

/// The smallest shipped machine of the family of `name` (`bow-pod16`: `bow`) that has `ipus`
/// IPUs; of a description of one's own, the smallest of all Mk2 ones.
fn enough_like(name: &str, ipus: u32) -> Option<&'static str> {
    let family = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    let wanted = match machines().contains(&name) {
        true => family(name),
        false => "mk2".into(),
    };
    let enough = machines().into_iter().filter_map(|name| {
        let n_ipus = shipped(name).spec.n_ipus;
        (family(name) == wanted && n_ipus >= ipus).then_some((n_ipus, name))
    });
    enough.min().map(|(_, name)| name)
}

/// The shipped machines, a row each.
///
/// # Errors
///
/// None: what ships is well-formed.
pub fn list() -> Result<String> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "system",
        "IPUs",
        "tiles",
        "clock GHz",
        "memory",
        "summary",
    ]);
    for name in machines() {
        let spec = shipped(name).spec;
        let tile = &spec.tile;
        let memory = tile.memory * u64::from(tile.tiles_per_ipu) * u64::from(spec.n_ipus);
        table.add_row([
            name.to_string(),
            spec.n_ipus.to_string(),
            (u64::from(tile.tiles_per_ipu) * u64::from(spec.n_ipus)).to_string(),
            format!("{:.3}", tile.clock.0 / 1e9),
            format!("{:.1} GB", memory.0 as f64 / 1e9),
            spec.summary.clone(),
        ]);
    }
    Ok(format!("{table}\n"))
}

/// One machine: every number with its kind, range and source.
///
/// # Errors
///
/// As [`choose`].
pub fn show(name: &str) -> Result<String> {
    let Machine { name, spec } = choose(Some(name), 1)?;
    let mut out = format!("{name}: {}\n", spec.summary);
    let mut section = "";
    for constant in spec.constants() {
        if constant.id.section() != section {
            section = constant.id.section();
            out += &format!("\n[{section}]\n");
        }
        let range = match constant.range {
            Some([least, most]) => format!(", {least} to {most}"),
            None => String::new(),
        };
        out += &format!(
            "{} = {} ({}{range}): {}\n",
            constant.id.name(),
            constant.value,
            constant.kind.word(),
            constant.source
        );
    }
    Ok(out)
}

/// The smallest shipped machine of a generation that has `ipus` IPUs.
fn smallest(generation: Generation, ipus: u32) -> Result<Machine> {
    let (prefix, kind) = match generation {
        Generation::Mk1 => ("mk1-", "Mk1"),
        Generation::Mk2 => ("mk2-", "Mk2"),
    };
    let names = machines().into_iter();
    let mut alike: Vec<Machine> = names
        .filter(|name| name.starts_with(prefix))
        .map(shipped)
        .collect();
    alike.sort_by_key(|machine| machine.spec.n_ipus);
    let largest = alike.last().map_or(0, |machine| machine.spec.n_ipus);
    let fitting = alike
        .into_iter()
        .find(|machine| machine.spec.n_ipus >= ipus);
    fitting.ok_or(Error::TooManyIpus {
        generation: kind,
        needed: ipus.into(),
        largest: largest.into(),
    })
}

fn shipped(name: &str) -> Machine {
    Machine {
        name: name.into(),
        spec: MachineSpec::shipped(name).expect("descriptions that ship can be read"),
    }
}

fn from_file(path: &str) -> Result<Machine> {
    let text = text::read_settings(Path::new(path)).map_err(|error| match error {
        Error::File { source, .. } if source.kind() == ErrorKind::NotFound => {
            Error::UnknownSystem {
                name: path.into(),
                shipped: machines(),
            }
        }
        error => error,
    })?;
    let spec = MachineSpec::from_toml(&text).map_err(|source| Error::System {
        name: path.into(),
        source: Box::new(source),
    })?;
    Ok(Machine {
        name: path.into(),
        spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::ConnectionType;

    #[test]
    fn the_smallest_mk2_system_with_enough_ipus() {
        for (ipus, name) in [
            (1, "mk2-m2000"),
            (4, "mk2-m2000"),
            (8, "mk2-pod16"),
            (16, "mk2-pod16"),
            (64, "mk2-pod64"),
            (256, "mk2-pod256"),
        ] {
            assert_eq!(choose(None, ipus).unwrap().name, name);
        }
        assert_eq!(choose(Some("bow-pod64"), 16).unwrap().name, "bow-pod64");
    }

    #[test]
    fn a_device_asks_for_its_generation_and_tiles() {
        let check = |named: Option<&str>,
                     version,
                     tiles,
                     expected: std::result::Result<(&str, u32), &str>| {
            let device = Device {
                id: None,
                version,
                tiles,
                connection: ConnectionType::Always,
                ondemand_timeout: std::time::Duration::ZERO,
            };
            let asked = named.map_or(MachineRequest::Nothing, MachineRequest::Named);
            let found = choose_for(asked, &device, 8)
                .map(|machine| (machine.name, machine.spec.tile.tiles_per_ipu));
            let found = found.map_err(|error| error.to_string());
            let expected = expected.map(|(name, tiles)| (name.to_string(), tiles));
            assert_eq!(found, expected.map_err(String::from));
        };
        check(None, None, None, Ok(("mk2-pod16", 1472)));
        let mk1 = Some(Generation::Mk1);
        check(None, mk1, None, Ok(("mk1-server16", 1216)));
        check(
            None,
            None,
            Some(64),
            Ok(("mk2-pod16 with 64 tiles an IPU", 64)),
        );
        check(
            Some("mk2-pod16"),
            mk1,
            None,
            Err("argument --device-version: not allowed with argument --system"),
        );
        check(
            None,
            None,
            Some(1473),
            Err(
                "argument --device-tiles: expected a count of tiles that mk2-pod16 can have, up to 1472, got 1473",
            ),
        );
    }

    #[test]
    fn what_cannot_be_chosen() {
        for (named, ipus, expected) in [
            (
                None,
                512,
                "no shipped Mk2 system has 512 IPUs, the largest has 256: name a machine with --system",
            ),
            (
                Some("mk2-pod16"),
                64,
                "system mk2-pod16 has 16 IPUs, the configuration needs 64: mk2-pod64 has as many",
            ),
            (
                Some("pod"),
                1,
                "unknown system 'pod': expected a file or one of mk1-server16, mk2-m2000, mk2-pod16, \
                 mk2-pod64, mk2-pod128, mk2-pod256, bow-pod16, bow-pod64, bow-pod128, bow-pod256",
            ),
        ] {
            assert_eq!(choose(named, ipus).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_file_is_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let path = path.to_str().unwrap();
        let check = |text: &str, ipus: u32, expected: std::result::Result<u32, &str>| {
            std::fs::write(path, text).unwrap();
            let found = choose(Some(path), ipus).map(|machine| machine.spec.n_ipus);
            let found =
                found.map_err(|error| crate::error::chain(&error).replace(path, "mine.toml"));
            assert_eq!(found, expected.map_err(String::from));
        };
        let mine = "name = \"mine\"\nbase = [\"mk2-m2000\"]\n";
        check(mine, 4, Ok(4));
        check(
            mine,
            8,
            Err("system mine.toml has 4 IPUs, the configuration needs 8: mk2-pod16 has as many"),
        );
        check(
            &format!(
                "{mine}[chip]\nmemory = {{ value = \"1 GHz\", kind = \"assumed\", source = \"none\" }}\n"
            ),
            4,
            Err(
                "system mine.toml: line 4, column 20: `chip.memory`: expected a unit of B, KiB, MiB, GiB, kB, MB, GB, got `GHz`",
            ),
        );
    }
}
