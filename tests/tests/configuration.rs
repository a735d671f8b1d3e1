//! The configuration as the program takes it: each setting by flag, environment and file, and what it says about mistakes.

use std::fs;
use std::process::Output;

use nexus_tests::Watchdog;
use nexus_tests::process::command;
use nexus_tests::temp::TempDir;

/// `--check-config` with these flags and variables.
fn checked(dir: &TempDir, flags: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = command(dir.path());
    // of the run of the suite
    command.env_remove("NEXUS_ISOLATION");
    command.arg("--check-config").args(flags).envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Key, value and comment of each line.
fn effective(output: &Output) -> Vec<(String, String, String)> {
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let out = text(&output.stdout);
    let split = |line: &str| {
        let (entry, comment) = line.split_once(" # ").unwrap();
        let (key, value) = entry.split_once(" = ").unwrap();
        (key.to_owned(), value.trim().to_owned(), comment.to_owned())
    };
    out.lines().map(split).collect()
}

/// `maxInstances` as a flag and as a variable.
fn names(key: &str) -> (String, String) {
    let mut words = String::new();
    let mut after_small = false;
    for ch in key.chars() {
        if ch.is_ascii_uppercase() && after_small {
            words.push('-');
        }
        after_small = ch.is_ascii_lowercase();
        words.push(ch.to_ascii_lowercase());
    }
    (format!("--{words}"), format!("NEXUS_{}", words.replace('-', "_").to_ascii_uppercase()))
}

#[test]
fn every_setting_can_be_given_in_three_places_and_a_wrong_value_is_named_with_its_place() {
    let _w = Watchdog::seconds(120);
    let dir = TempDir::new();
    let file = dir.join("x.toml");
    let settings = effective(&checked(&dir, &[], &[]));
    assert!(settings.len() >= 34 && settings.iter().all(|(.., comment)| comment.ends_with("default")));
    let help = text(&command(dir.path()).args(["serve", "--help"]).output().unwrap().stdout);
    for (key, value, _) in &settings {
        let (flag, variable) = names(key);
        assert!(help.contains(&format!("{flag} <")) && help.contains(&variable), "{key} is not in the help");
        let config = ["--config", file.to_str().unwrap()];
        let bare = value.trim_matches('"');
        // the default itself, from each place in turn
        fs::write(&file, format!("{key} = {value}\n")).unwrap();
        for (given, place) in [
            (checked(&dir, &[&flag, bare], &[]), format!("flag {flag}")),
            (checked(&dir, &[], &[(&variable, bare)]), format!("environment variable {variable}")),
            (checked(&dir, &config, &[]), format!("{}:1", file.display())),
            (checked(&dir, &[], &[("NEXUS_CONFIG", config[1])]), format!("{}:1", file.display())),
        ] {
            let (_, same, comment) = effective(&given).into_iter().find(|(other, ..)| other == key).unwrap();
            assert!(same == *value && comment.ends_with(&place), "{key} = {same} # {comment}");
        }
        if ["cacheDir", "quickjsModulePath", "metricsTextfile"].contains(&key.as_str()) {
            // every text is a path
            continue;
        }
        fs::write(&file, format!("\n{key} = \"x y\"\n")).unwrap();
        for (given, place) in [
            (checked(&dir, &[&flag, "x y"], &[]), format!("(flag {flag})")),
            (checked(&dir, &[], &[(&variable, "x y")]), format!("(environment variable {variable})")),
            (checked(&dir, &config, &[]), format!("({}:2)", file.display())),
        ] {
            let said = text(&given.stderr);
            assert_eq!((given.status.code(), given.stdout.len()), (Some(2), 0), "{said}");
            assert!(said.starts_with(&format!("error: {key} = \"x y\" {place}: must be ")), "{said}");
        }
    }
}

#[test]
fn a_number_beyond_its_bound_is_told_the_bound() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    for (flags, bound) in [
        (["--max-instances", "0"], "must be 1 or more"),
        (["--max-instances", "99999999"], "must be 2000 or less"),
        (["--memory-limit-bytes", "1 KiB"], "must be 1 MiB or more"),
        (["--stack-size-bytes", "1 GiB"], "must be 2 MiB or less"),
        (["--min-instances", "11"], "must not be more than maxInstances = 10 (default)"),
    ] {
        let output = checked(&dir, &flags, &[]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(bound), "{flags:?}: {said}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset_and_one_that_is_no_setting_is_told() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let output = checked(&dir, &[], &[("NEXUS_MAX_INSTANCES", ""), ("NEXUS_MAX_INSTANCE", "4")]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(said.starts_with("warning: environment variable NEXUS_MAX_INSTANCE "), "{said}");
    assert!(said.ends_with("did you mean NEXUS_MAX_INSTANCES?\n"), "{said}");
    assert!(text(&output.stdout).contains("maxInstances = 10"));
}
