//! A template's parts on a value.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    MAX_OUTPUT, TemplateError,
    functions::{call, show, truth},
    parse::{Command, Node, Root, Word},
};

pub(super) fn run(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut run = Run { out: String::new(), variables: vec![(String::new(), data.clone())] };
    run.nodes(nodes, data)?;
    Ok(run.out)
}

/// How a part ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run {
    out: String,
    /// Innermost last; the nameless one is `$`.
    variables: Vec<(String, Value)>,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let depth = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                self.variables.truncate(depth);
                return Ok(flow);
            }
        }
        self.variables.truncate(depth);
        Ok(Flow::On)
    }

    fn put(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(TemplateError::new("the output grows beyond 64 MiB"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.put(text)?,
            Node::Action { set: None, pipeline } => {
                let value = self.pipeline(pipeline, dot)?;
                let text = show(&value);
                self.put(&text)?;
            }
            Node::Action { set: Some((name, declares)), pipeline } => {
                let value = self.pipeline(pipeline, dot)?.into_owned();
                if *declares {
                    self.variables.push((name.clone(), value));
                } else {
                    self.variables
                        .iter_mut()
                        .rev()
                        .find(|(known, _)| known == name)
                        .ok_or_else(|| TemplateError::new(format!("there is no variable ${name}")))?
                        .1 = value;
                }
            }
            Node::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if truth(&*self.pipeline(condition, dot)?) {
                        return self.nodes(body, dot);
                    }
                }
                return self.nodes(otherwise, dot);
            }
            Node::With { set, pipeline, body, otherwise } => {
                let value = self.pipeline(pipeline, dot)?.into_owned();
                if !truth(&value) {
                    return self.nodes(otherwise, dot);
                }
                let depth = self.variables.len();
                self.variables.extend(set.iter().map(|name| (name.clone(), value.clone())));
                let flow = self.nodes(body, &value)?;
                self.variables.truncate(depth);
                return Ok(flow);
            }
            Node::Range { key, item, pipeline, body, otherwise } => {
                let value = self.pipeline(pipeline, dot)?.into_owned();
                return self.range(key.as_ref(), item.as_ref(), &value, body, otherwise, dot);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        key: Option<&String>,
        item: Option<&String>,
        value: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let pairs: Vec<(Value, &Value)> = match value {
            Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
            Value::Object(map) => map.iter().map(|(key, item)| (key.as_str().into(), item)).collect(),
            Value::Null => Vec::new(),
            other => return Err(TemplateError::new(format!("range cannot go over {other}"))),
        };
        if pairs.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (at, value) in pairs {
            let depth = self.variables.len();
            self.variables.extend(key.map(|name| (name.clone(), at)));
            self.variables.extend(item.map(|name| (name.clone(), value.clone())));
            let flow = self.nodes(body, value)?;
            self.variables.truncate(depth);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline<'a>(&self, commands: &'a [Command], dot: &'a Value) -> Result<Cow<'a, Value>, TemplateError> {
        let mut last: Option<Cow<'a, Value>> = None;
        for command in commands {
            last = Some(self.command(command, last, dot)?);
        }
        last.ok_or_else(|| TemplateError::new("a value is missing"))
    }

    fn command<'a>(
        &self,
        command: &'a Command,
        piped: Option<Cow<'a, Value>>,
        dot: &'a Value,
    ) -> Result<Cow<'a, Value>, TemplateError> {
        let Some((Word::Function(name), words)) = command.words.split_first() else {
            let word = command.words.first().ok_or_else(|| TemplateError::new("a value is missing"))?;
            return self.word(word, dot);
        };
        // These two stop at the argument that decides, so that `and .a .a.b` is safe without a `.a`.
        if let "and" | "or" = name.as_str() {
            let mut last = None;
            for word in words {
                let value = self.word(word, dot)?;
                if truth(&value) == (name == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            return piped.or(last).ok_or_else(|| TemplateError::new(format!("{name} needs an argument")));
        }
        let mut arguments = Vec::with_capacity(words.len() + 1);
        for word in words {
            arguments.push(self.word(word, dot)?);
        }
        arguments.extend(piped);
        call(name, &arguments).map(Cow::Owned)
    }

    fn word<'a>(&self, word: &'a Word, dot: &'a Value) -> Result<Cow<'a, Value>, TemplateError> {
        match word {
            Word::Literal(value) => Ok(Cow::Borrowed(value)),
            Word::Function(name) => call(name, &[]).map(Cow::Owned),
            Word::Fields { of, path } => match &**of {
                Root::Dot => follow(dot, path).map(Cow::Borrowed),
                Root::Variable(name) => {
                    let (_, value) = self
                        .variables
                        .iter()
                        .rev()
                        .find(|(known, _)| known == name)
                        .ok_or_else(|| TemplateError::new(format!("there is no variable ${name}")))?;
                    follow(value, path).cloned().map(Cow::Owned)
                }
                Root::Group(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    follow(&value, path).cloned().map(Cow::Owned)
                }
            },
        }
    }
}

fn follow<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value, TemplateError> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(map) => map.get(name).ok_or_else(|| {
            let near = crate::api::suggest::nearest(name, map.keys().map(String::as_str));
            let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
            TemplateError::new(format!("there is no field {name:?}{near}"))
        }),
        Value::Array(_) => {
            Err(TemplateError::new(format!("a list has no field {name:?}; use range or index")))
        }
        _ => Err(TemplateError::new(format!("{} has no field {name:?}", show(value)))),
    })
}
