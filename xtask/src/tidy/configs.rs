//! Does every file of `configs/` parse?
//!
//! Whether the content makes sense is tested where it is used: presets in `bench-cli`,
//! machines in `ipu-sim`.

use super::{Complaint, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    tree.below("configs/")
        .filter_map(|(path, text)| {
            let message = match path.rsplit_once('.').map(|(_, extension)| extension) {
                Some("json") => json_error(text)?,
                Some("toml") => toml_error(text)?,
                _ => "runs are .json files and machines .toml files: put others elsewhere".into(),
            };
            Some(Complaint::file(path, message))
        })
        .collect()
}

fn json_error(text: &str) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_)) => None,
        Ok(_) => Some("a run is one JSON object: write { \"option\": value, .. }".into()),
        Err(error) => Some(format!("not JSON: {error}")),
    }
}

fn toml_error(text: &str) -> Option<String> {
    let error = text.parse::<toml::Table>().err()?;
    let line = error
        .span()
        .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    Some(format!("not TOML: {} at line {line}", error.message()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::expect_complaints;
    use super::*;

    #[test]
    fn files_that_do_not_parse_are_named_with_the_line() {
        expect_complaints(
            check,
            &[
                ("configs/demo.json", "{ \"num_layers\": 2 }"),
                ("configs/mk2/broken.json", "{\n  \"num_layers\": 2,\n}"),
                ("configs/mk2/list.json", "[1, 2]"),
                ("configs/notes.txt", ""),
                (
                    "configs/systems/broken.toml",
                    "name = \"pod\"\nipus = = 4\n",
                ),
                ("configs/systems/pod.toml", "name = \"pod\"\n"),
            ],
            &expect![[r#"
                configs/mk2/broken.json: not JSON: trailing comma at line 3 column 1
                configs/mk2/list.json: a run is one JSON object: write { "option": value, .. }
                configs/notes.txt: runs are .json files and machines .toml files: put others elsewhere
                configs/systems/broken.toml: not TOML: extra `=`, expected nothing at line 2
            "#]],
        );
    }
}
