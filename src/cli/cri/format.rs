//! `-o`, `--format` and `--template`, and printing in what they ask for.

use std::{io::Write, str::FromStr};

use clap::Args;
use serde_json::Value;

use super::template::Template;
use crate::{cli::output, error::CommandError};

/// How to print.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FormatArgs {
    /// table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template
    #[arg(short, long, visible_alias = "format", value_name = "FORMAT")]
    output: Option<Spelling>,
    /// A Go template, for -o go-template
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
}

/// What was typed for `-o`.
#[derive(Debug, Clone, PartialEq)]
enum Spelling {
    Table,
    Json,
    Yaml,
    GoTemplate(Option<String>),
}

impl FromStr for Spelling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "go-template" => Ok(Self::GoTemplate(None)),
            text if text.contains("{{") => {
                let template = text.strip_prefix("go-template=").unwrap_or(text);
                Ok(Self::GoTemplate(Some(template.to_owned())))
            }
            _ => Err("it is one of table, json, yaml, go-template, or a template with {{…}}".to_owned()),
        }
    }
}

/// What to print.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Format {
    Table,
    Json,
    Yaml,
    Template(Template),
}

impl FormatArgs {
    /// What is asked for, or `default`. A template is read here, before the runtime is asked.
    pub(super) fn format(&self, default: Format) -> Result<Format, CommandError> {
        let text = match (&self.output, &self.template) {
            (Some(Spelling::GoTemplate(Some(text))), None) => text,
            (None | Some(Spelling::GoTemplate(None)), Some(text)) => text,
            (Some(Spelling::GoTemplate(None)), None) => {
                return Err(CommandError::usage("-o go-template needs --template"));
            }
            (Some(_), Some(_)) => {
                return Err(CommandError::usage("--template goes with -o go-template alone"));
            }
            (Some(Spelling::Json), None) => return Ok(Format::Json),
            (Some(Spelling::Yaml), None) => return Ok(Format::Yaml),
            (Some(Spelling::Table), None) => return Ok(Format::Table),
            (None, None) => return Ok(default),
        };
        let template = Template::parse(text);
        template
            .map(Format::Template)
            .map_err(|error| CommandError::usage(format!("the template is broken: {error}")))
    }
}

impl Format {
    /// Prints; `table` makes the text of a table.
    pub(super) fn print(
        &self,
        out: &mut dyn Write,
        value: impl FnOnce() -> Result<Value, CommandError>,
        table: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        let text = match self {
            Self::Table => table(),
            Self::Json => output::json(&value()?)?,
            Self::Yaml => output::yaml(&value()?)?,
            Self::Template(template) => {
                let made = template.render(&value()?);
                made.map_err(|error| CommandError::failed(format!("the template does not fit: {error}")))?
                    + "\n"
            }
        };
        output::write(out, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(output: Option<&str>, template: Option<&str>) -> Result<Format, String> {
        let output = output.map(str::parse).transpose()?;
        let args = FormatArgs { output, template: template.map(str::to_owned) };
        args.format(Format::Json).map_err(|error| error.to_string())
    }

    #[test]
    fn spellings() {
        assert_eq!(format(None, None), Ok(Format::Json));
        assert_eq!(format(Some("yaml"), None), Ok(Format::Yaml));
        let template = Ok(Format::Template(Template::parse("{{.a}}").unwrap()));
        assert_eq!(format(Some("go-template"), Some("{{.a}}")), template);
        assert_eq!(format(None, Some("{{.a}}")), template);
        assert_eq!(format(Some("{{.a}}"), None), template);
        assert_eq!(format(Some("go-template={{.a}}"), None), template);
        assert!(format(Some("xml"), None).unwrap_err().contains("one of table"));
        assert!(format(Some("go-template"), None).unwrap_err().contains("needs --template"));
        assert!(format(Some("json"), Some("{{.a}}")).unwrap_err().contains("goes with"));
        assert!(format(Some("{{.a"), None).unwrap_err().contains("the template is broken"));
    }
}
