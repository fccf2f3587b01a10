//! Values at paths of a TOML document, however it is written: with headers, dotted keys or inline tables.
//! What is not touched stays as it is, comments and all.

use thiserror::Error;
use toml_edit::{InlineTable, Item, Key, Table, Value};

/// A path leads through something that is no table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path} is {found}, and should be a table")]
pub(super) struct NoTable {
    path: String,
    found: &'static str,
}

/// A path as it is written in TOML.
pub(super) fn shown(path: &[&str]) -> String {
    let keys: Vec<String> = path.iter().map(|key| Key::new(*key).to_string()).collect();
    keys.join(".")
}

/// What is at a path.
pub(super) fn get<'a>(root: &'a Item, path: &[&str]) -> Option<&'a Item> {
    path.iter().try_fold(root, |item, key| item.get(key)).filter(|item| !item.is_none())
}

/// The text at a path.
pub(super) fn get_str<'a>(root: &'a Item, path: &[&str]) -> Option<&'a str> {
    get(root, path)?.as_str()
}

/// The names in the table at a path.
pub(super) fn names(root: &Item, path: &[&str]) -> Vec<String> {
    let table = get(root, path).and_then(Item::as_table_like);
    table.map(|table| table.iter().map(|(name, _)| name.to_owned()).collect()).unwrap_or_default()
}

/// Takes away what is at a path, and answers whether there was something.
pub(super) fn remove(root: &mut Item, path: &[&str]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let parent = above.iter().try_fold(root, |item, key| item.get_mut(key));
    parent.and_then(Item::as_table_like_mut).and_then(|table| table.remove(last)).is_some()
}

/// Gives what is in the table at a path another name, and answers whether it was there and the name was free.
pub(super) fn rename(root: &mut Item, path: &[&str], old: &str, new: &str) -> bool {
    let found = path.iter().try_fold(root, |item, key| item.get_mut(key));
    let Some(table) = found.and_then(Item::as_table_like_mut).filter(|table| !table.contains_key(new)) else {
        return false;
    };
    let decor = table.key(old).map(|key| (key.leaf_decor().clone(), key.dotted_decor().clone()));
    let Some(item) = table.remove(old) else { return false };
    table.insert(new, item);
    if let (Some((leaf, dotted)), Some(mut key)) = (decor, table.key_mut(new)) {
        *key.leaf_decor_mut() = leaf;
        *key.dotted_decor_mut() = dotted;
    }
    true
}

/// Moves what is at a path, with the comments before it, to another, where nothing is yet. A table that is left empty
/// goes, unless a comment stands before it.
///
/// # Errors
/// When something on the way to the new place is no table.
pub(super) fn move_to(root: &mut Item, from: &[&str], to: &[&str]) -> Result<(), NoTable> {
    let (Some((old, above)), Some((new, below))) = (from.split_last(), to.split_last()) else {
        return Ok(());
    };
    // Made first, so that nothing is lost when it cannot be.
    let mut place = &mut *root;
    for (depth, key) in below.iter().enumerate() {
        let found = place.type_name();
        let no_table = || NoTable { path: shown(below.get(..depth).unwrap_or_default()), found };
        place = step(place, key, depth + 1 == below.len()).ok_or_else(no_table)?;
    }
    let found = place.type_name();
    if !place.is_table_like() {
        return Err(NoTable { path: shown(below), found });
    }
    let parent = above.iter().try_fold(&mut *root, |item, key| item.get_mut(key));
    let taken = match parent {
        Some(Item::Table(table)) => table.remove_entry(old),
        Some(Item::Value(Value::InlineTable(table))) => {
            table.remove_entry(old).map(|(key, value)| (key, Item::Value(value)))
        }
        _ => None,
    };
    let Some((key, mut item)) = taken else { return Ok(()) };
    let place = below.iter().try_fold(&mut *root, |item, key| item.get_mut(key));
    let mut named = Key::new(*new);
    *named.leaf_decor_mut() = key.leaf_decor().clone();
    // As far in as those that it comes to.
    let there = place.as_deref().and_then(Item::as_table).map(indent).unwrap_or_default();
    let prefix = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let own = last_line(prefix);
    if item.is_value() && !there.is_empty() && !own.is_empty() {
        let lines = prefix.split_inclusive('\n');
        let moved: String = lines
            .map(|line| {
                line.strip_prefix(&own).map_or_else(|| line.to_owned(), |line| format!("{there}{line}"))
            })
            .collect();
        named.leaf_decor_mut().set_prefix(moved);
    }
    *named.dotted_decor_mut() = key.dotted_decor().clone();
    match place {
        Some(Item::Table(table)) => {
            if table.is_dotted()
                && let Item::Table(inner) = &mut item
            {
                inner.set_dotted(true);
            }
            table.insert_formatted(&named, item);
        }
        Some(Item::Value(Value::InlineTable(table))) => {
            if let Ok(value) = item.into_value() {
                table.insert_formatted(&named, value);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Puts a value at a path, in the way its surroundings are written, and answers whether that changed anything.
///
/// # Errors
/// When something on the way is no table.
pub(super) fn set(root: &mut Item, path: &[&str], value: impl Into<Value>) -> Result<bool, NoTable> {
    let Some((last, above)) = path.split_last() else { return Ok(false) };
    let mut value = value.into();
    let mut item = root;
    for (depth, key) in above.iter().enumerate() {
        let found = item.type_name();
        let no_table = || NoTable { path: shown(path.get(..depth).unwrap_or_default()), found };
        item = step(item, key, depth + 1 == above.len()).ok_or_else(no_table)?;
    }
    let found = item.type_name();
    let indent = item.as_table().map(indent).unwrap_or_default();
    let Some(table) = item.as_table_like_mut() else { return Err(NoTable { path: shown(above), found }) };
    if let Some(old) = table.get_mut(last).filter(|old| !old.is_none()) {
        let Some(old) = old.as_value_mut() else {
            return Err(NoTable { path: shown(above), found: "written in a way that is not understood" });
        };
        if same(old, &value) {
            return Ok(false);
        }
        *value.decor_mut() = old.decor().clone();
        *old = value;
        return Ok(true);
    }
    table.insert(last, Item::Value(value));
    if !indent.is_empty()
        && let Some(mut key) = table.key_mut(last)
    {
        key.leaf_decor_mut().set_prefix(indent);
    }
    Ok(true)
}

fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::String(old), Value::String(new)) => old.value() == new.value(),
        (Value::Boolean(old), Value::Boolean(new)) => old.value() == new.value(),
        (Value::Integer(old), Value::Integer(new)) => old.value() == new.value(),
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new.iter()).all(|(old, new)| same(old, new))
        }
        _ => false,
    }
}

/// The table of a name within another, made if it is not there, in the way its surroundings are written.
fn step<'a>(item: &'a mut Item, key: &str, is_last: bool) -> Option<&'a mut Item> {
    let missing = item.as_table_like()?.get(key).is_none_or(Item::is_none);
    if missing {
        match item {
            Item::Table(table) => {
                let mut made = Table::new();
                made.set_dotted(table.is_dotted());
                made.set_implicit(!is_last);
                if !table.is_dotted() {
                    made.decor_mut().set_prefix(format!("\n{}", header_indent(table)));
                }
                table.insert(key, Item::Table(made));
            }
            Item::Value(Value::InlineTable(table)) => {
                table.insert(key, Value::InlineTable(InlineTable::new()));
            }
            _ => return None,
        }
    }
    item.get_mut(key)
}

/// The blanks before the last of a table's keys.
fn indent(table: &Table) -> String {
    let last = table.iter().filter(|(_, item)| item.is_value()).last();
    let key = last.and_then(|(name, _)| table.key(name));
    key.and_then(|key| key.leaf_decor().prefix()?.as_str()).map(last_line).unwrap_or_default()
}

/// The blanks before the headers of a table's own tables, or before its own.
fn header_indent(table: &Table) -> String {
    let tables = table.iter().filter_map(|(_, item)| item.as_table());
    let written = tables.filter(|inner| !inner.is_implicit() && !inner.is_dotted()).last().unwrap_or(table);
    written.decor().prefix().and_then(|prefix| prefix.as_str()).map(last_line).unwrap_or_default()
}

fn last_line(text: &str) -> String {
    let line = text.rsplit('\n').next().unwrap_or_default();
    if line.trim().is_empty() { line.to_owned() } else { String::new() }
}

/// Takes texts out of the array at a path, and answers whether any was there. The comments before them stay.
pub(super) fn take_out(root: &mut Item, path: &[&str], unwanted: impl Fn(&str) -> bool) -> bool {
    let found = path.iter().try_fold(root, |item, key| item.get_mut(key));
    let Some(array) = found.and_then(Item::as_array_mut) else { return false };
    let mut taken = false;
    let mut comments = String::new();
    let mut at = 0;
    while let Some(value) = array.get(at) {
        let prefix = value.decor().prefix().and_then(|p| p.as_str()).unwrap_or_default().to_owned();
        if value.as_str().is_some_and(&unwanted) {
            if prefix.contains('#') {
                comments.push_str(&prefix);
            }
            array.remove(at);
            taken = true;
            continue;
        }
        if !comments.is_empty()
            && let Some(value) = array.get_mut(at)
        {
            value.decor_mut().set_prefix(format!("{}{prefix}", std::mem::take(&mut comments)));
        }
        at += 1;
    }
    if !comments.is_empty() {
        let trailing = array.trailing().as_str().unwrap_or_default().to_owned();
        let gap = if trailing.contains('\n') { "" } else { "\n" };
        array.set_trailing(format!("{comments}{gap}{trailing}"));
    }
    if taken && array.is_empty() && !array.trailing().as_str().unwrap_or_default().contains('#') {
        array.set_trailing("");
        array.set_trailing_comma(false);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml_edit::DocumentMut;

    fn edited(text: &str, edit: impl FnOnce(&mut Item) -> bool) -> String {
        let mut document: DocumentMut = text.parse().unwrap();
        edit(document.as_item_mut());
        let text = document.to_string();
        text.parse::<DocumentMut>().unwrap();
        text
    }

    fn with(text: &str, path: &[&str], value: impl Into<Value>) -> String {
        edited(text, |root| set(root, path, value).unwrap())
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        for (text, expected) in [
            ("a.b = 1 # why\n", "a.b = 2 # why\n"),
            ("[a] # head\n  b  =  1\n", "[a] # head\n  b  =  2\n"),
            ("a = { b = 1, c = 3 }\n", "a = { b = 2, c = 3 }\n"),
            ("\"a\".'b' = 1\n", "\"a\".'b' = 2\n"),
        ] {
            assert_eq!(with(text, &["a", "b"], 2), expected);
            let mut document: DocumentMut = text.parse().unwrap();
            assert!(!set(document.as_item_mut(), &["a", "b"], 1).unwrap());
            assert_eq!(document.to_string(), text);
        }
    }

    #[test]
    fn a_new_value_is_written_as_its_surroundings_are() {
        for (text, expected) in [
            ("", "\n[a.b]\nc = 1\n"),
            ("[a]\n  x = 0\n# next\n[z]\n", "[a]\n  x = 0\n\n[a.b]\nc = 1\n# next\n[z]\n"),
            ("[a.b]\n    x = 0 # y\n", "[a.b]\n    x = 0 # y\n    c = 1\n"),
            ("[a]\n\n  [a.z]\n    x = 0\n", "[a]\n\n  [a.z]\n    x = 0\n\n  [a.b]\nc = 1\n"),
            ("a = { x = 0 }\n", "a = { x = 0 , b = { c = 1 } }\n"),
            ("a.x = 0\n", "a.x = 0\na.b.c = 1\n"),
            ("[a.b.d]\nx = 0\n", "[a.b]\nc = 1\n[a.b.d]\nx = 0\n"),
        ] {
            assert_eq!(with(text, &["a", "b", "c"], 1), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_table_is_told() {
        let mut document: DocumentMut = "a = 1\n[[b]]\n".parse().unwrap();
        let error = set(document.as_item_mut(), &["a", "x.y", "c"], 1).unwrap_err();
        assert_eq!(error.to_string(), "a is integer, and should be a table");
        assert!(set(document.as_item_mut(), &["b", "c"], 1).is_err());
        assert_eq!(shown(&["plugins", "io.containerd.x"]), "plugins.\"io.containerd.x\"");
    }

    #[test]
    fn texts_are_taken_out_of_arrays_and_comments_stay() {
        let without = |text: &str| edited(text, |root| take_out(root, &["d"], |text| text == "cri"));
        for (text, expected) in [
            ("d = [\"cri\"] # x\n", "d = [] # x\n"),
            ("d = [\"a\", 'cri', \"b\"]\n", "d = [\"a\", \"b\"]\n"),
            ("d = [\n  # why\n  \"cri\",\n  \"b\",\n]\n", "d = [\n  # why\n  \n  \"b\",\n]\n"),
            ("d = [\"a\"]\n", "d = [\"a\"]\n"),
            ("d = 1\n", "d = 1\n"),
        ] {
            assert_eq!(without(text), expected);
        }
    }
}
