//! Which machine to simulate.
//!
//! The descriptions themselves are `configs/systems/NAME.toml`; here are only the names that ship
//! and how many IPUs each has, to choose one when none is named.

use serde::Serialize;

use crate::{Error, Result};

/// Names and IPU counts of the systems that ship, Mk2 ones in rising order.
pub const SHIPPED: &[(&str, u64)] = &[
    ("mk2-m2000", 4),
    ("mk2-pod16", 16),
    ("mk2-pod64", 64),
    ("mk2-pod128", 128),
    ("mk2-pod256", 256),
    ("bow-pod16", 16),
    ("bow-pod64", 64),
    ("bow-pod128", 128),
    ("bow-pod256", 256),
    ("mk1-server16", 16),
];

/// A machine chosen, not yet read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its name: a shipped one, or the file's.
    pub name: String,
    /// Where its description is.
    pub description: Description,
}

/// Where the description of a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Description {
    /// It ships under the machine's name.
    Shipped,
    /// It is this text, from a file of the user.
    Text(String),
}

/// The machine that `--system` names, or the smallest Mk2 one with `ipus` IPUs.
///
/// A name that ships wins over a file of that name. That a user's own machine has enough IPUs is
/// checked when its description is read.
///
/// # Errors
///
/// A name that neither ships nor is a readable file; a system with fewer IPUs.
pub fn choose(named: Option<&str>, ipus: u32) -> Result<Machine> {
    let needed = u64::from(ipus);
    let Some(name) = named else {
        return smallest_mk2(needed);
    };
    if let Some((_, available)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        if *available < needed {
            return Err(Error::SystemTooSmall {
                system: name.into(),
                available: *available,
                needed,
            });
        }
        return Ok(shipped(name));
    }
    match std::fs::read_to_string(name) {
        Ok(text) => Ok(Machine {
            name: name.into(),
            description: Description::Text(text),
        }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(Error::UnknownSystem {
            name: name.into(),
            shipped: SHIPPED.iter().map(|(name, _)| *name).collect(),
        }),
        Err(source) => Err(Error::File {
            action: "read",
            path: name.into(),
            source,
        }),
    }
}

fn smallest_mk2(needed: u64) -> Result<Machine> {
    let mut mk2 = SHIPPED.iter().filter(|(name, _)| name.starts_with("mk2-"));
    let largest = mk2.clone().map(|(_, ipus)| *ipus).max().unwrap_or_default();
    match mk2.find(|(_, ipus)| *ipus >= needed) {
        Some((name, _)) => Ok(shipped(name)),
        None => Err(Error::TooManyIpus { needed, largest }),
    }
}

fn shipped(name: &str) -> Machine {
    Machine {
        name: name.into(),
        description: Description::Shipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "system mk2-pod16 has 16 IPUs, the configuration needs 64",
            ),
            (
                Some("pod"),
                1,
                "unknown system 'pod': expected a file or one of mk2-m2000, mk2-pod16, mk2-pod64, \
                 mk2-pod128, mk2-pod256, bow-pod16, bow-pod64, bow-pod128, bow-pod256, mk1-server16",
            ),
        ] {
            assert_eq!(choose(named, ipus).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_file_brings_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "name = \"mine\"").unwrap();
        let machine = choose(path.to_str(), 4096).unwrap();
        assert_eq!(
            machine.description,
            Description::Text("name = \"mine\"".into())
        );
    }
}
