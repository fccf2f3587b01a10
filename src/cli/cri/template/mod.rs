//! Go templates, in the subset that people give to crictl and docker: fields, variables, pipelines,
//! `if`/`else`, `range`, `with`, and the functions `and`, `eq`, `ge`, `gt`, `index`, `join`, `json`, `le`,
//! `len`, `lower`, `lt`, `ne`, `not`, `or`, `print`, `printf`, `println`, `title`, `upper`.
//!
//! They work on JSON, as crictl's do: numbers beyond 32 bits are texts there. A field that is not there is
//! an error and not `<no value>`, as with crictl. What the subset lacks (`define`, `template`, `block`) is
//! refused when the template is read, before the runtime is asked.

mod eval;
mod functions;
mod parse;

use serde_json::Value;

use parse::Node;

/// Text that a template may produce, and how deep its parts may nest: it is typed by root, so this guards
/// against slips alone.
const MAX_OUTPUT: usize = 64 << 20;

/// A template that has been read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    nodes: Vec<Node>,
}

/// What is wrong with a template, or with its use on what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct TemplateError(String);

impl TemplateError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parse::parse(text)? })
    }

    /// The text that it makes of `data`.
    pub(super) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::run(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests;
