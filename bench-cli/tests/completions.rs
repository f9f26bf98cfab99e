//! The completions that bash offers, asked of bash itself.
#![cfg(all(test, unix))]

use std::process::Command;

/// What bash offers for the last of `words`.
fn offered(words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_ipu-bench");
    let script = format!(
        "source <(\"{program}\" completions bash)\n\
         COMP_WORDS=(ipu-bench {words}); COMP_CWORD={last}\n\
         _ipu-bench ipu-bench '{word}' '{before}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words = words.join(" "),
        last = words.len(),
        word = words[words.len() - 1],
        before = words.iter().rev().nth(1).unwrap_or(&"ipu-bench"),
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("bash is on every machine that builds this");
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn commands_and_their_options_are_offered() {
    assert_eq!(offered(&["be"]), ["bert"]);
    assert_eq!(
        offered(&["bert", "--seq"]),
        ["--sequence-length", "--sequences-per-pack"]
    );
    assert_eq!(offered(&["data", "pre"]), ["pretraining"]);
    assert_eq!(
        offered(&["data", "pretraining", "--vocab"]),
        ["--vocab-file"]
    );
    assert_eq!(offered(&["plan", "--gr"]), ["--groups"]);
    assert_eq!(offered(&["bert", "--zzz"]), Vec::<String>::new());
}
