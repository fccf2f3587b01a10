//! How large containers' logs grow: Docker limited them itself, the kubelet does with any other runtime.

use super::{Carried, options};
use crate::switch::facts::Facts;

/// The fewest that the kubelet's validation takes.
const MIN_FILES: i32 = 2;
/// What Docker's driver `local` does by itself.
const LOCAL: (&str, i32) = ("20Mi", 5);

pub(super) fn carry(facts: &Facts, carried: &mut Carried) {
    let driver = options::text(facts, "log-driver").unwrap_or_else(|| "json-file".to_owned());
    let option = |name: &str| options::entry(facts, "log-opt", "log-opts", name);
    if driver != "json-file" && driver != "local" {
        carried.warnings.push(format!(
            "Docker's log driver {driver} has no successor: containerd writes containers' logs to files below /var/log/pods, \
             and whoever collects them has to read them there"
        ));
        return;
    }
    if let Some(size) = option("max-size").filter(|size| !size.is_empty() && size != "-1") {
        match quantity(&size) {
            Some(quantity) => carried.log_max_size = Some(quantity),
            None => carried
                .warnings
                .push(format!("Docker's log option max-size {size:?} is no size: it is not carried over")),
        }
    } else if driver == "local" {
        carried.log_max_size = Some(LOCAL.0.to_owned());
    } else {
        carried.notes.push(
            "Docker had no limit for containers' logs; the kubelet has (10Mi in 5 files, unless containerLogMaxSize and \
             containerLogMaxFiles say another)"
                .to_owned(),
        );
        return;
    }
    carried.log_max_files = match option("max-file") {
        // Without it json-file has a single one, which nobody has asked for.
        None => (driver == "local").then_some(LOCAL.1),
        Some(text) => match text.trim().parse::<i32>() {
            Ok(files) if files >= MIN_FILES => Some(files),
            Ok(files) => {
                carried.notes.push(format!(
                    "Docker kept {files} log of each container; the kubelet keeps at least {MIN_FILES}"
                ));
                Some(MIN_FILES)
            }
            Err(_) => {
                carried.warnings.push(format!(
                    "Docker's log option max-file {text:?} is no number: it is not carried over"
                ));
                None
            }
        },
    };
}

/// A size of Docker's as a quantity. Its letters are powers of 1000 here, whatever follows them (`FromHumanSize` of
/// docker/go-units, which the log drivers use: `10m` is ten million bytes).
fn quantity(size: &str) -> Option<String> {
    let end = size.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(size.len());
    let (number, unit) = size.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut bytes = whole.parse::<u64>().ok()?.checked_mul(1000_u64.checked_pow(power)?)?;
    let mut step = 1000_u64.checked_pow(power)?;
    for digit in fraction.chars() {
        step /= 10;
        bytes = bytes.checked_add(u64::from(digit.to_digit(10)?) * step)?;
    }
    let suffixes = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1000, "k"), (1, "")];
    let (size, suffix) = suffixes.into_iter().find(|(size, _)| bytes % size == 0)?;
    (bytes > 0).then(|| format!("{}{suffix}", bytes / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_sizes_are_powers_of_a_thousand() {
        for (size, expected) in [
            ("10m", "10M"),
            ("10M", "10M"),
            ("10mb", "10M"),
            ("10 MiB", "10M"),
            ("1.5g", "1500M"),
            ("1024k", "1024k"),
            ("100", "100"),
            ("2000k", "2M"),
            ("0.5k", "500"),
            ("1t", "1T"),
            ("3B", "3"),
        ] {
            assert_eq!(quantity(size).as_deref(), Some(expected), "{size}");
        }
        for size in ["", "m", "-1", "0", "10x", "1.2.3m", "99999999999999999999", "1e3"] {
            assert_eq!(quantity(size), None, "{size}");
        }
    }
}
