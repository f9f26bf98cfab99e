//! The command as people see it: console text that doubles as documentation.

#[test]
fn console() {
    trycmd::TestCases::new()
        .case("tests/cmd/*.trycmd")
        .case("../docs/outputs.md");
}
