//! What a unit asks systemd to start, stop and order with it.
//!
//! A drop-in can add to these lists and never take away (systemd.unit(5)), so that an entry goes where it stands.

use super::words::settings;

/// The lists that start or stop one unit with another.
const NEEDS: [&str; 6] = ["Requires", "Requisite", "Wants", "BindsTo", "PartOf", "Upholds"];
/// Those, and the one that only orders them.
const ORDER: &str = "After";

/// Whether a unit file needs one of some units.
pub fn needs(text: &str, units: &[&str]) -> bool {
    settings(text).iter().any(|setting| {
        setting.section == "Unit"
            && NEEDS.contains(&setting.key.as_str())
            && setting.words().iter().any(|word| units.contains(&word.text.value().as_str()))
    })
}

/// A unit file that names another unit in place of some; of a list that has it already, they go. Everything else
/// stays as it is.
pub fn replace(text: &str, units: &[&str], by: &str) -> String {
    let mut text = text.to_owned();
    for setting in settings(&text.clone()).iter().rev() {
        let key = setting.key.as_str();
        if setting.section != "Unit" || !(NEEDS.contains(&key) || key == ORDER) {
            continue;
        }
        let words = setting.words();
        let mut has = words.iter().any(|word| word.text.value() == by);
        let mut changes: Vec<(std::ops::Range<usize>, &str)> = Vec::new();
        for word in &words {
            if units.contains(&word.text.value().as_str()) {
                changes.push((word.place.clone(), if has { "" } else { by }));
                has = true;
            }
        }
        for (mut range, new) in changes.into_iter().rev() {
            if new.is_empty() {
                let before = text.get(..range.start).unwrap_or_default();
                let blank = before.len() - before.trim_end_matches([' ', '\t']).len();
                range.start -= blank;
            }
            text.replace_range(range, new);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: [&str; 2] = ["docker.service", "docker.socket"];

    #[test]
    fn one_unit_takes_the_place_of_others() {
        let text = "[Unit]\n# docker.service\nAfter=network.target docker.service docker.socket\nRequires=docker.service\n\
                    Wants=docker.socket  containerd.service\n[Service]\nExecStart=/k --after=docker.service\n";
        assert!(needs(text, &DOCKER));
        let new = replace(text, &DOCKER, "containerd.service");
        assert_eq!(
            new,
            "[Unit]\n# docker.service\nAfter=network.target containerd.service\nRequires=containerd.service\n\
             Wants=  containerd.service\n[Service]\nExecStart=/k --after=docker.service\n"
        );
        assert!(!needs(&new, &DOCKER));
        assert_eq!(replace(&new, &DOCKER, "containerd.service"), new);
        assert!(!needs("[Unit]\nAfter=docker.service\n", &DOCKER));
    }
}
