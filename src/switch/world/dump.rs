//! What containerd makes of its configuration.

use std::{path::Path, time::Duration};

use super::{Node, Report, program};
use crate::switch::containerd::check_dump;

const DUMP: Duration = Duration::from_secs(30);

impl<R: Report> Node<R> {
    /// Has containerd read its files, and compares.
    pub(super) async fn check_containerd_config(
        &self,
        config: &Path,
        expected: &[(String, String)],
    ) -> Result<(), String> {
        let containerd = match &self.paths.containerd {
            Some(program) => program.clone(),
            None => program::find("containerd")?,
        };
        let dump = dump(&containerd, config).await?;
        check_dump(&dump, expected).map_err(|problems| {
            format!("{} is not read as wished: {}", config.display(), problems.join("; "))
        })
    }
}

/// What `containerd config dump` prints of a file and those that it imports.
pub(super) async fn dump(containerd: &Path, config: &Path) -> Result<String, String> {
    let mut command = program::command(containerd, &["--config"]);
    command.arg(config).args(["config", "dump"]);
    let what = format!("containerd --config {} config dump", config.display());
    program::run(command, &what, None, DUMP).await?.succeeded(&what)
}
