//! A template's text to its parts.

use serde_json::Value;

use super::TemplateError;

/// How deep blocks and parentheses may nest.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// `{{pipeline}}`, `{{$x := pipeline}}`, `{{$x = pipeline}}`.
    Action {
        set: Option<(String, bool)>,
        pipeline: Pipeline,
    },
    If {
        branches: Vec<(Pipeline, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    With {
        set: Option<String>,
        pipeline: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        item: Option<String>,
        pipeline: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// Commands of which each gets the former's result as its last argument.
pub(super) type Pipeline = Vec<Command>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    /// The first is a function's name or a value; values take no arguments.
    pub(super) words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Function(String),
    Literal(Value),
    /// `.` or `$x` or a parenthesis, and the fields after it.
    Fields {
        of: Box<Root>,
        path: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Root {
    Dot,
    Variable(String),
    Group(Pipeline),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Text(String),
    Open,
    Close,
    Word(String),
    /// `.a`, without the dot; a lone dot is empty.
    Field(String),
    /// `$x`, without the dollar.
    Variable(String),
    Literal(Value),
    /// `|`, `(`, `)`, `,`, `:=`, `=`.
    Sign(&'static str),
    /// Between words: `a .b` are two and `a.b` is one.
    Space,
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(TemplateError::new(format!("{{{{{word}}}}} without a block that it ends"))),
    }
}

/// `{{- ` and ` -}}` take the white space beside them away; comments are dropped.
fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (mut before, mut inside) = rest.split_at(start);
        inside = &inside[2..];
        if trim {
            before = before.trim_start();
        }
        if let Some(trimmed) = inside.strip_prefix('-').filter(|t| t.starts_with(char::is_whitespace)) {
            before = before.trim_end();
            inside = trimmed;
        }
        if !before.is_empty() {
            tokens.push(Token::Text(before.to_owned()));
        }
        if let Some(comment) = inside.trim_start().strip_prefix("/*") {
            let end = comment.split_once("*/").map(|(_, after)| after.trim_start());
            let Some(end) = end else { return Err(TemplateError::new("a comment has no end")) };
            let (closed, rest_of) = end.strip_prefix('-').map_or((end, false), |end| (end, true));
            let Some(after) = closed.strip_prefix("}}") else {
                return Err(TemplateError::new("a comment ends in \"*/}}\""));
            };
            (rest, trim) = (after, rest_of);
            continue;
        }
        tokens.push(Token::Open);
        (rest, trim) = inner(inside, &mut tokens)?;
        tokens.push(Token::Close);
    }
    let last = if trim { rest.trim_start() } else { rest };
    if !last.is_empty() {
        tokens.push(Token::Text(last.to_owned()));
    }
    Ok(tokens)
}

/// What stands between the braces; gives the text after them, and whether its white space is to go.
fn inner<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Result<(&'a str, bool), TemplateError> {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        if trimmed.len() < rest.len() {
            tokens.push(Token::Space);
            if let Some(after) = trimmed.strip_prefix("-}}") {
                return Ok((after, true));
            }
        }
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((after, false));
        }
        let Some(first) = rest.chars().next() else {
            return Err(TemplateError::new("\"{{\" has no \"}}\""));
        };
        let word = |from: &str| {
            from.chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum()
        };
        let (token, length): (Token, usize) = match first {
            '.' => {
                let length: usize = word(&rest[1..]);
                (Token::Field(rest[1..=length].to_owned()), length + 1)
            }
            '$' => {
                let length: usize = word(&rest[1..]);
                (Token::Variable(rest[1..=length].to_owned()), length + 1)
            }
            '|' => (Token::Sign("|"), 1),
            '(' => (Token::Sign("("), 1),
            ')' => (Token::Sign(")"), 1),
            ',' => (Token::Sign(","), 1),
            ':' if rest.starts_with(":=") => (Token::Sign(":="), 2),
            '=' => (Token::Sign("="), 1),
            '"' => quoted(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| TemplateError::new("a text in ` has no end"))?;
                (Token::Literal(Value::from(&rest[1..=end])), end + 2)
            }
            '0'..='9' | '-' | '+' => number(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let length: usize = word(rest);
                let token = match &rest[..length] {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    name => Token::Word(name.to_owned()),
                };
                (token, length)
            }
            other => return Err(TemplateError::new(format!("unexpected {other:?}"))),
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

/// A text in double quotes, whose escapes are close enough to JSON's.
fn quoted(rest: &str) -> Result<(Token, usize), TemplateError> {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                let text = &rest[..=index];
                let value: Value = serde_json::from_str(text).map_err(|_place| {
                    TemplateError::new(format!("{text} has an escape that is not known"))
                })?;
                return Ok((Token::Literal(value), index + 1));
            }
            _ => {}
        }
    }
    Err(TemplateError::new("a text in double quotes has no end"))
}

fn number(rest: &str) -> Result<(Token, usize), TemplateError> {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".+-_".contains(c))).unwrap_or(rest.len());
    let text = &rest[..end];
    let value = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
    let value = value.map_err(|_float| TemplateError::new(format!("{text:?} is no number")))?;
    Ok((Token::Literal(value), end))
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    loops: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn spaces(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.at += 1;
        }
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        self.spaces();
        match self.take() {
            Some(Token::Close) => Ok(()),
            other => Err(unexpected(other.as_ref())),
        }
    }

    /// Parts up to the end of the text or to an `else` or `end`, whose word is given.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::new("blocks nest too deep"));
        }
        let mut nodes = Vec::new();
        loop {
            match self.take() {
                None => {
                    self.depth -= 1;
                    return Ok((nodes, None));
                }
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => {
                    self.spaces();
                    let word = match self.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    if matches!(word.as_str(), "else" | "end") {
                        self.at += 1;
                        self.depth -= 1;
                        return Ok((nodes, Some(word)));
                    }
                    nodes.push(self.node(&word)?);
                }
            }
        }
    }

    fn node(&mut self, word: &str) -> Result<Node, TemplateError> {
        match word {
            "if" => {
                self.at += 1;
                self.branches()
            }
            "with" | "range" => {
                self.at += 1;
                self.block(word == "range")
            }
            "break" | "continue" => {
                self.at += 1;
                self.close()?;
                if self.loops == 0 {
                    return Err(TemplateError::new(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            "define" | "template" | "block" => {
                Err(TemplateError::new(format!("{{{{{word}}}}} is not supported")))
            }
            _ => {
                let (names, declares) = self.variables()?;
                let pipeline = self.pipeline()?;
                self.close()?;
                if names.len() > 1 {
                    return Err(TemplateError::new("too many variables outside {{range}}"));
                }
                Ok(Node::Action { set: names.into_iter().next().map(|name| (name, declares)), pipeline })
            }
        }
    }

    fn branches(&mut self) -> Result<Node, TemplateError> {
        let mut branches = Vec::new();
        loop {
            let pipeline = self.pipeline()?;
            self.close()?;
            let (body, end) = self.nodes()?;
            branches.push((pipeline, body));
            match end.as_deref() {
                Some("end") => {
                    self.close()?;
                    return Ok(Node::If { branches, otherwise: Vec::new() });
                }
                Some(_) => {
                    self.spaces();
                    if self.peek() == Some(&Token::Word("if".to_owned())) {
                        self.at += 1;
                        continue;
                    }
                    self.close()?;
                    let otherwise = self.last_part("if")?;
                    return Ok(Node::If { branches, otherwise });
                }
                None => return Err(no_end("if")),
            }
        }
    }

    fn block(&mut self, range: bool) -> Result<Node, TemplateError> {
        let name = if range { "range" } else { "with" };
        let (mut names, declares) = self.variables()?;
        if names.len() > 1 + usize::from(range) || (!names.is_empty() && !declares) {
            return Err(TemplateError::new(format!("{{{{{name}}}}} has variables that it cannot have")));
        }
        let pipeline = self.pipeline()?;
        self.close()?;
        self.loops += usize::from(range);
        let (body, end) = self.nodes()?;
        self.loops -= usize::from(range);
        let otherwise = match end.as_deref() {
            Some("end") => {
                self.close()?;
                Vec::new()
            }
            Some(_) => {
                self.close()?;
                self.last_part(name)?
            }
            None => return Err(no_end(name)),
        };
        let item = names.pop();
        Ok(if range {
            Node::Range { key: names.pop(), item, pipeline, body, otherwise }
        } else {
            Node::With { set: item, pipeline, body, otherwise }
        })
    }

    fn last_part(&mut self, name: &str) -> Result<Vec<Node>, TemplateError> {
        let (nodes, end) = self.nodes()?;
        if end.as_deref() != Some("end") {
            return Err(no_end(name));
        }
        self.close()?;
        Ok(nodes)
    }

    /// `$x :=`, `$x, $y :=` or `$x =` at the start of an action, if it is there.
    fn variables(&mut self) -> Result<(Vec<String>, bool), TemplateError> {
        let start = self.at;
        let mut names = Vec::new();
        loop {
            self.spaces();
            let Some(Token::Variable(name)) = self.peek().cloned() else { break };
            names.push(name);
            self.at += 1;
            self.spaces();
            match self.peek() {
                Some(Token::Sign(",")) => self.at += 1,
                Some(Token::Sign(sign @ (":=" | "="))) => {
                    let declares = *sign == ":=";
                    self.at += 1;
                    if names.iter().any(String::is_empty) {
                        return Err(TemplateError::new("$ cannot be set"));
                    }
                    return Ok((names, declares));
                }
                _ => break,
            }
        }
        self.at = start;
        Ok((Vec::new(), false))
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let mut commands = Vec::new();
        loop {
            let mut words = Vec::new();
            loop {
                self.spaces();
                match self.peek() {
                    Some(Token::Close | Token::Sign("|" | ")")) | None => break,
                    Some(_) => words.push(self.word()?),
                }
            }
            if words.is_empty() {
                return Err(TemplateError::new("a value is missing"));
            }
            let plain = !matches!(words.first(), Some(Word::Function(_)));
            if plain && (words.len() > 1 || !commands.is_empty()) {
                return Err(TemplateError::new("a value is no function and takes no arguments"));
            }
            commands.push(Command { words });
            if self.peek() != Some(&Token::Sign("|")) {
                return Ok(commands);
            }
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<Word, TemplateError> {
        let root = match self.take() {
            Some(Token::Word(name)) => {
                super::functions::known(&name)?;
                return Ok(Word::Function(name));
            }
            Some(Token::Literal(value)) => return Ok(Word::Literal(value)),
            Some(Token::Variable(name)) => Root::Variable(name),
            Some(Token::Field(name)) => {
                let path = if name.is_empty() { Vec::new() } else { vec![name] };
                return self.fields(Root::Dot, path);
            }
            Some(Token::Sign("(")) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(TemplateError::new("parentheses nest too deep"));
                }
                let pipeline = self.pipeline()?;
                self.depth -= 1;
                self.spaces();
                if self.take() != Some(Token::Sign(")")) {
                    return Err(TemplateError::new("\"(\" has no \")\""));
                }
                Root::Group(pipeline)
            }
            other => return Err(unexpected(other.as_ref())),
        };
        self.fields(root, Vec::new())
    }

    fn fields(&mut self, of: Root, mut path: Vec<String>) -> Result<Word, TemplateError> {
        while let Some(Token::Field(name)) = self.peek() {
            if name.is_empty() {
                return Err(TemplateError::new("\".\" has no field behind it"));
            }
            path.push(name.clone());
            self.at += 1;
        }
        Ok(Word::Fields { of: Box::new(of), path })
    }
}

fn no_end(block: &str) -> TemplateError {
    TemplateError::new(format!("{{{{{block}}}}} has no {{{{end}}}}"))
}

fn unexpected(token: Option<&Token>) -> TemplateError {
    TemplateError::new(match token {
        Some(Token::Word(word)) => format!("unexpected {word:?}"),
        Some(Token::Sign(sign)) => format!("unexpected {sign:?}"),
        Some(Token::Field(name)) => format!("unexpected \".{name}\""),
        Some(Token::Literal(value)) => format!("unexpected {value}"),
        _ => "an action ends too early".to_owned(),
    })
}
