//! `nodectl config`: print kubelet's defaults, check configuration files.
//!
//! The functions here give text back; the caller prints it and sets the exit code.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::config::{ConfigError, ConfigWarning, Origin, Problem, defaulted, validate_file};

/// Arguments of `nodectl config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `nodectl config` does.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the KubeletConfiguration that is in force where nothing is configured, as YAML
    Defaults,
    /// Check KubeletConfiguration files: exit code 0 if all are valid, else 2
    Validate(ValidateArgs),
}

/// Arguments of `nodectl config validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    /// Files to check, each on its own
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub output: ReportFormat,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A line for each problem and warning
    #[default]
    Text,
    /// One JSON object for all files
    Json,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The text to print, with a newline at its end.
    pub text: String,
    /// Whether every file is valid.
    pub valid: bool,
}

/// kubelet's defaults as YAML, in the order of kubelet's own type. Nothing of the machine is in it.
///
/// # Errors
/// The serializer's, which for this type cannot happen.
pub fn defaults() -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(&defaulted())
}

/// Checks each file on its own.
pub fn validate(args: &ValidateArgs) -> Report {
    let results: Vec<_> = args.files.iter().map(|file| (file, validate_file(file))).collect();
    let valid = results.iter().all(|(_, result)| result.is_ok());
    let text = match args.output {
        ReportFormat::Json => {
            let files: Vec<Value> =
                results.iter().map(|(file, result)| to_json(&file.display().to_string(), result)).collect();
            format!("{:#}\n", json!({ "valid": valid, "files": files }))
        }
        ReportFormat::Text => {
            results.iter().map(|(file, result)| to_text(&file.display().to_string(), result)).collect()
        }
    };
    Report { text, valid }
}

fn to_text(file: &str, result: &Result<Vec<ConfigWarning>, ConfigError>) -> String {
    let mut text = String::new();
    let mut line = |level: &str, what: String| {
        // Writing to a string does not fail.
        writeln!(text, "{level}: {what}").unwrap_or_default();
    };
    match result {
        Ok(warnings) => {
            for warning in warnings {
                line("warning", warning.to_string());
            }
            line("ok", file.to_owned());
        }
        Err(ConfigError::Invalid(problems)) => {
            for problem in problems {
                line("error", problem.to_string());
            }
        }
        Err(other) => line("error", other.to_string()),
    }
    text
}

fn to_json(file: &str, result: &Result<Vec<ConfigWarning>, ConfigError>) -> Value {
    let (problems, warnings): (Vec<Value>, Vec<Value>) = match result {
        Ok(warnings) => (Vec::new(), warnings.iter().map(warning_json).collect()),
        Err(ConfigError::Invalid(problems)) => (problems.iter().map(problem_json).collect(), Vec::new()),
        Err(other) => (vec![json!({ "message": other.to_string() })], Vec::new()),
    };
    json!({ "file": file, "valid": result.is_ok(), "problems": problems, "warnings": warnings })
}

fn problem_json(problem: &Problem) -> Value {
    let mut value = json!({ "key": problem.key, "message": problem.message });
    if let Some(suggestion) = &problem.suggestion {
        value["suggestion"] = suggestion.as_str().into();
    }
    with_place(value, &problem.origin)
}

fn warning_json(warning: &ConfigWarning) -> Value {
    let value = json!({ "kind": warning.kind.as_str(), "key": warning.key, "message": warning.message });
    with_place(value, &warning.origin)
}

fn with_place(mut value: Value, origin: &Origin) -> Value {
    if let Origin::File { line, column, .. } = origin {
        value["line"] = (*line).into();
        value["column"] = (*column).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: ReportFormat, contents: &[&str]) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let files = contents
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let file = dir.path().join(format!("{at}.yaml"));
                std::fs::write(&file, text).unwrap();
                file
            })
            .collect();
        validate(&ValidateArgs { files, output })
    }

    const GOOD: &str =
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxOpenFiles: 70\n";
    const BAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxpods: 50\n";

    #[test]
    fn defaults_are_valid_and_stable() {
        let yaml = defaults().unwrap();
        assert_eq!(yaml, defaults().unwrap());
        assert!(
            yaml.starts_with("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"),
            "{yaml}"
        );
        let checked = report(ReportFormat::Text, &[&yaml]);
        assert!(checked.valid, "{}", checked.text);
        assert!(!checked.text.contains("warning"), "{}", checked.text);
    }

    #[test]
    fn a_report_names_file_line_and_key() {
        let text = report(ReportFormat::Text, &[GOOD, BAD]);
        assert!(!text.valid);
        assert!(text.text.contains("0.yaml:3:15: maxOpenFiles: not yet acted on"), "{}", text.text);
        assert!(
            text.text.contains("1.yaml:3:1: maxpods: unknown key (did you mean \"maxPods\"?)"),
            "{}",
            text.text
        );
        assert!(report(ReportFormat::Text, &[GOOD]).valid);
    }

    #[test]
    fn a_report_can_be_json() {
        let report = report(ReportFormat::Json, &[GOOD, BAD]);
        let value: Value = serde_json::from_str(&report.text).unwrap();
        assert_eq!(value["valid"], false);
        assert_eq!(value["files"][0]["warnings"][0]["kind"], "notYet");
        assert_eq!(value["files"][1]["problems"][0]["line"], 3);
        assert_eq!(value["files"][1]["problems"][0]["suggestion"], "maxPods");
    }

    #[test]
    fn a_missing_file_is_named() {
        let args = ValidateArgs { files: vec!["/nonexistent/x.yaml".into()], output: ReportFormat::Text };
        let report = validate(&args);
        assert!(!report.valid);
        assert!(report.text.contains("/nonexistent/x.yaml"), "{}", report.text);
    }
}
