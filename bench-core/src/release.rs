//! Release of the published application that a run follows.
//!
//! The application kept its option names and changed what some of them mean: what a run does beside
//! the same keys depends on the [`Release`] in force, which [`signs`] reads off a configuration. Source: the tags of graphcore/examples,
//! `applications/popart/bert` up to v2.5.0 and `nlp/bert/popart` after it; v3.1.0 is the last that
//! has BERT for PopART.

pub mod keys;
pub mod signs;

use std::fmt;
use std::str::FromStr;

/// Release of the published application, in order of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Release {
    /// Revision 96fef3f of March 2021, before the first release that is told apart here.
    Revision96fef3f,
    /// v2.1.0.
    V2_1,
    /// v2.2.0.
    V2_2,
    /// v2.3.0, which is followed where nothing says which.
    #[default]
    V2_3,
    /// v2.4.0.
    V2_4,
    /// v2.5.0.
    V2_5,
    /// v2.6.0.
    V2_6,
    /// v3.0.0.
    V3_0,
    /// v3.1.0.
    V3_1,
}

impl Release {
    /// All releases, oldest first.
    pub const ALL: [Self; 9] = [
        Self::Revision96fef3f,
        Self::V2_1,
        Self::V2_2,
        Self::V2_3,
        Self::V2_4,
        Self::V2_5,
        Self::V2_6,
        Self::V3_0,
        Self::V3_1,
    ];

    /// Name of the release: that of its tag without the last number, or of its revision.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Revision96fef3f => "96fef3f",
            Self::V2_1 => "v2.1",
            Self::V2_2 => "v2.2",
            Self::V2_3 => "v2.3",
            Self::V2_4 => "v2.4",
            Self::V2_5 => "v2.5",
            Self::V2_6 => "v2.6",
            Self::V3_0 => "v3.0",
            Self::V3_1 => "v3.1",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no [`Release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no release is called so, expected one of 96fef3f, v2.1 to v2.6, v3.0 and v3.1")]
pub struct UnknownRelease;

impl FromStr for Release {
    type Err = UnknownRelease;

    /// Reads the name of a release, or the tag that it stands for: `v2.3` or `v2.3.0`.
    fn from_str(text: &str) -> Result<Self, UnknownRelease> {
        let mut all = Self::ALL.into_iter();
        let named = |release: &Self| {
            let tag = text.strip_prefix(release.name());
            tag.is_some_and(|rest| {
                rest.is_empty() || (rest == ".0" && *release != Self::Revision96fef3f)
            })
        };
        all.find(named).ok_or(UnknownRelease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_again_and_in_order() {
        for release in Release::ALL {
            assert_eq!(release.to_string().parse(), Ok(release));
        }
        assert!(Release::ALL.is_sorted());
        assert_eq!("v2.3.0".parse(), Ok(Release::default()));
    }

    #[test]
    fn other_texts_name_none() {
        for text in ["", "v2", "2.3", "v3.2", "v2.3.1", "96fef3f.0", "v2.3.0.0"] {
            assert_eq!(text.parse::<Release>(), Err(UnknownRelease), "{text}");
        }
    }
}
