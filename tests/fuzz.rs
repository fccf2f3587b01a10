//! Inputs that nobody would write: mutations of the corpus and of a configuration, and bytes at random, given to
//! the bodies of `fuzz/`. A bounded number on every run, the same each time.
//!
//! `NODECTL_FUZZ_RUNS=100000 NODECTL_FUZZ_SEED=7 cargo test --test fuzz` tries others; a failure names both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test fails by panicking and says why; the bodies belong to two programs"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use nodectl::api::quantity::{Format, Quantity};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Inputs for each body.
const RUNS: u64 = 3000;
/// What means something to a reader of these formats.
const WORDS: &[&str] = &[
    "null",
    "~",
    "yes",
    "0x1F",
    "0o17",
    "017",
    "-0",
    "1e400",
    "99999999999999999999",
    ".inf",
    "\"\"",
    "''",
    "{}",
    "[]",
    "[[[[",
    "}}",
    "---\n",
    "...\n",
    "&a",
    "*a",
    "<<: *a",
    "!!str",
    "!!binary",
    "%YAML 1.1\n",
    "\t",
    "\r\n",
    "\u{feff}",
    "\u{2028}",
    "\\u0000",
    "\0",
    "\u{e9}",
    "# ",
    ": ",
    "- ",
    "? ",
    "|\n",
    ">-\n",
    "metadata: ",
    "name: ",
    "containers: ",
    "image",
    "spec",
    "items: ",
    "kind: PodList\n",
    "$(A)",
    "$$",
    "$(",
    "1Ki",
    "0.1n",
    "9E",
    "5m30s",
    "../../",
    "a/b",
    "${A}",
    "uid: .",
    "valueFrom",
    "emptyDir: {}",
    "featureGates: {A: true}",
];

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The files of a folder below the project.
fn files(folder: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect()
}

fn manifests() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = ["good", "bad"].map(|kind| files(&format!("tests/pods/{kind}"))).concat();
    // JSON goes another way.
    let json = |bytes: &Vec<u8>| {
        let pods = nodectl::api::manifest::parse(bytes, nodectl::api::manifest::Shape::Pod).ok()?;
        Some(pods[0].document.canonical().into_bytes())
    };
    let as_json: Vec<Vec<u8>> = all.iter().filter_map(json).collect();
    all.extend(as_json);
    all
}

fn range(random: &mut StdRng, length: usize, most: usize) -> std::ops::Range<usize> {
    let start = random.random_range(0..=length);
    start..random.random_range(start..=length.min(start + most))
}

/// One small change.
fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    let length = bytes.len();
    match random.random_range(0..8) {
        0 => {
            bytes.drain(range(random, length, 40));
        }
        1 => {
            let word = WORDS.choose(random).unwrap();
            let place = range(random, length, 8);
            bytes.splice(place, word.bytes());
        }
        2 => {
            let part = bytes[range(random, length, 200)].to_vec();
            let at = random.random_range(0..=length);
            bytes.splice(at..at, part);
        }
        3 => {
            let other = seeds.choose(random).unwrap();
            let part = other[range(random, other.len(), 400)].to_vec();
            bytes.splice(range(random, length, 200), part);
        }
        4 if length > 0 => {
            let at = random.random_range(0..length);
            bytes[at] = random.random();
        }
        5 => bytes.truncate(random.random_range(0..=length)),
        6 => {
            // A line somewhere else.
            let mut lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
            if lines.len() > 1 {
                let line = lines.remove(random.random_range(0..lines.len()));
                lines.insert(random.random_range(0..=lines.len()), line);
            }
            *bytes = lines.concat();
        }
        _ => {
            let count = random.random_range(0..16);
            let noise: Vec<u8> = (0..count).map(|_| random.random()).collect();
            let at = random.random_range(0..=length);
            bytes.splice(at..at, noise);
        }
    }
}

/// Gives a body the seeds, mutations of them, and bytes at random.
fn run(body: fn(&[u8]), seeds: &[Vec<u8>]) {
    let seed = number("NODECTL_FUZZ_SEED", 1);
    for round in 0..number("NODECTL_FUZZ_RUNS", RUNS) {
        // Every round is its own, so that one alone can be had again.
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1 << 32).wrapping_add(round));
        let mut input = match usize::try_from(round).ok().and_then(|at| seeds.get(at)) {
            Some(seed) => seed.clone(),
            None if round % 16 == 0 => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
            None => {
                let mut input = seeds.choose(&mut random).unwrap().clone();
                (0..random.random_range(1..6)).for_each(|_| mutate(&mut input, seeds, &mut random));
                input
            }
        };
        input.truncate(bodies::MOST);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&input))) {
            eprintln!("seed {seed}, round {round}: {}", input.escape_ascii());
            resume_unwind(panic);
        }
    }
}

#[test]
fn manifests_of_any_kind_are_read_or_refused() {
    run(bodies::manifest, &manifests());
}

#[test]
fn quantities_of_any_kind_are_read_or_refused() {
    let seeds =
        ["0", "1.5Gi\n250m", "-12e-3\n9223372036854775807", "1Ei\n-1n\n+.5k", "0.000000000049E\n1e-400\n7Ki"];
    run(bodies::quantity, &seeds.map(|text| text.as_bytes().to_vec()));
}

#[test]
fn texts_of_any_kind_are_expanded_by_the_book() {
    let seeds = ["1\n2\n$(A)-$(LONG-NAME)", "$(A)\n$$\n$$$(A)$(B)$($(A))", "\n\n$($$)$"];
    run(bodies::expansion, &seeds.map(|text| text.as_bytes().to_vec()));
}

#[test]
fn configurations_of_any_kind_are_read_or_refused() {
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    let seeds = [
        "staticPodPath: /etc/kubernetes/manifests\nsyncFrequency: 1m30s\nmaxPods: 110\n",
        "featureGates: {A: true}\nevictionHard: {memory.available: 100Mi, nodefs.available: 10%}\n",
        "staticPodURLHeader: {Authorization: [secret]}\nclusterDNS: [10.0.0.10]\nport: 0\n",
        "shutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 2}]\nlogging: {format: json}\n",
    ];
    run(bodies::config, &seeds.map(|text| format!("{head}{text}").into_bytes()));
}

const NANOS: i128 = 1_000_000_000;
const MOST_NANOS: i128 = i64::MAX as i128 * NANOS;

/// A quantity of so many billionths, by way of its text.
fn of_nanos(nanos: i128) -> Quantity {
    Quantity::parse(&format!(
        "{}{}.{:09}",
        if nanos < 0 { "-" } else { "" },
        nanos.abs() / NANOS,
        nanos.abs() % NANOS
    ))
    .unwrap()
}

/// Division away from zero.
fn away(amount: i128, by: i128) -> i128 {
    amount.signum() * ((amount.abs() + by - 1) / by)
}

fn amounts() -> impl Strategy<Value = i128> {
    prop_oneof![-MOST_NANOS..=MOST_NANOS, -10 * NANOS..=10 * NANOS, Just(MOST_NANOS), Just(-MOST_NANOS)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(number("NODECTL_FUZZ_SEED", 1)), ..ProptestConfig::default()
    })]
    #[test]
    fn a_quantity_is_the_number_times_its_suffix(
        digits in 0i128..1_000_000_000_000, places in 0u32..13, negative: bool, suffix in 0usize..17
    ) {
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3"];
        let (up, down) = match suffix {
            0..=2 => (1, 1000_i128.pow(3 - u32::try_from(suffix).unwrap())),
            3..=9 => (1000_i128.pow(u32::try_from(suffix - 3).unwrap()), 1),
            10..=15 => (1024_i128.pow(u32::try_from(suffix - 9).unwrap()), 1),
            _ => (1000, 1),
        };
        let point = 10_i128.pow(places);
        let width = places as usize;
        let text = format!(
            "{}{}.{:0width$}{}", if negative { "-" } else { "" }, digits / point, digits % point, suffixes[suffix]
        );
        let text = if places == 0 { text.replace(".0", "") } else { text };
        // Whole ones and the rest apart: the product of all would not fit.
        let (amount, by) = (digits * up, point * down);
        let nanos = (amount / by).saturating_mul(NANOS).saturating_add(away(amount % by * NANOS, by)).min(MOST_NANOS);
        let found = Quantity::parse(&text).unwrap().nano_value();
        prop_assert_eq!(found, if negative { -nanos } else { nanos }, "{}", text);
    }

    #[test]
    fn arithmetic_is_that_of_whole_billionths(left in amounts(), right in amounts()) {
        let (a, b) = (of_nanos(left), of_nanos(right));
        prop_assert_eq!((a.nano_value(), b.nano_value()), (left, right));
        prop_assert_eq!((a + b).nano_value(), (left + right).clamp(-MOST_NANOS, MOST_NANOS));
        prop_assert_eq!((a - b).nano_value(), (left - right).clamp(-MOST_NANOS, MOST_NANOS));
        prop_assert_eq!((-a).nano_value(), -left);
        prop_assert_eq!(a.cmp(&b), left.cmp(&right));
        prop_assert_eq!(a == b, left == right);
        prop_assert_eq!(i128::from(a.value()), away(left, NANOS));
        let milli = away(left, NANOS / 1000).clamp(i64::MIN.into(), i64::MAX.into());
        prop_assert_eq!(i128::from(a.milli_value()), milli);
        prop_assert_eq!((a.is_zero(), a.is_whole()), (left == 0, left % NANOS == 0));
    }

    #[test]
    fn whole_values_keep_their_notation(value: i64, format in 0usize..3) {
        let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][format];
        let quantity = Quantity::from_value(value, format);
        prop_assert_eq!(quantity.value(), value.max(-i64::MAX));
        let text = quantity.to_string();
        let again = Quantity::parse(&text).unwrap();
        prop_assert_eq!(again, quantity);
        // The printed form says which notation it is in, unless it has no suffix.
        if text.ends_with('i') || again.format() == format {
            prop_assert_eq!((again.format(), again.to_string()), (format, text));
        }
    }
}
