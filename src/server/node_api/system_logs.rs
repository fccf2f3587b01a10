//! `/logs/`: the files of the node's log folder, as kubelet serves them. Links are followed within the folder only.

use std::{
    fs::{self, File, FileType},
    io,
    os::fd::AsRawFd as _,
    path::Path,
    sync::Arc,
};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::StreamExt as _;
use tokio_util::io::ReaderStream;

use super::{NodeApi, Refusal, of_type, serve::Reply, text};
use crate::host::beneath::{Owner, open_beneath};

/// Entries of a folder that are shown.
const MOST_ENTRIES: usize = 50_000;
/// Bytes of a file that are read at a time.
const BLOCK: usize = 16 << 10;
/// Files that are read at a time.
const MOST_FILES: usize = 64;

/// Places for files that are read.
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_FILES)))
    }
}

/// What a path leads to.
enum Found {
    /// The names in a folder, those of folders with a slash behind, and whether there are more.
    Folder(Vec<String>, bool),
    File(File, u64),
}

impl NodeApi {
    /// A file, or what is in a folder. `path` is below the log folder.
    pub(super) async fn system_logs(&self, path: &str) -> Result<Reply, Refusal> {
        if !self.config.system_logs {
            return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n"));
        }
        let place = Arc::clone(&self.system_logs.0).try_acquire_owned().map_err(|_none| {
            let words = format!("{MOST_FILES} files are read at the moment; try again later\n");
            Refusal(StatusCode::TOO_MANY_REQUESTS, words)
        })?;
        let (folder, wanted) = (self.log_folder.clone(), path.to_owned());
        let found = tokio::task::spawn_blocking(move || find(&folder, Path::new(&wanted))).await;
        match found.map_err(|error| Refusal::failed(error.to_string()))?.map_err(|error| refused(&error))? {
            // Links of the listing are below the folder.
            Found::Folder(..) if !(path.is_empty() || path.ends_with('/')) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                moved(&format!("{}/", percent(name)))
            }
            Found::Folder(names, more) => {
                Ok(of_type(StatusCode::OK, "text/html; charset=utf-8", listing(&names, more)))
            }
            // As Go's file server has it.
            Found::File(..) if path.ends_with('/') => {
                let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                moved(&format!("../{}", percent(name)))
            }
            Found::File(file, length) => Ok(file_reply(path, file, length, place)),
        }
    }
}

fn moved(to: &str) -> Result<Reply, Refusal> {
    let mut reply = text(StatusCode::MOVED_PERMANENTLY, "");
    let to = HeaderValue::try_from(to).map_err(|error| Refusal::failed(error.to_string()))?;
    reply.headers_mut().insert(LOCATION, to);
    Ok(reply)
}

/// Blocks on the file system.
fn find(folder: &Path, path: &Path) -> io::Result<Found> {
    let found = open_beneath(folder, path, Owner::Host)?;
    let reopened = format!("/proc/self/fd/{}", found.as_raw_fd());
    let metadata = fs::metadata(&reopened)?;
    if metadata.is_dir() {
        let (mut names, mut more) = (Vec::new(), false);
        for entry in fs::read_dir(&reopened)? {
            let entry = entry?;
            // A name that is no text cannot be asked for either.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if names.len() == MOST_ENTRIES {
                more = true;
                break;
            }
            let is_folder = entry.file_type().as_ref().is_ok_and(FileType::is_dir);
            names.push(if is_folder { name + "/" } else { name });
        }
        names.sort_unstable();
        return Ok(Found::Folder(names, more));
    }
    // To open a pipe or a device would do something.
    if !metadata.is_file() {
        return Err(Errno::EACCES.into());
    }
    let file = open(reopened.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(Found::File(File::from(file), metadata.len()))
}

fn refused(error: &io::Error) -> Refusal {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL | Errno::ENAMETOOLONG | Errno::ELOOP) => {
            Refusal::not_found("404 page not found\n")
        }
        Some(Errno::EXDEV) => {
            Refusal(StatusCode::FORBIDDEN, "a link there leads out of the log folder\n".to_owned())
        }
        Some(Errno::EACCES) => Refusal(StatusCode::FORBIDDEN, "it is no file\n".to_owned()),
        _ => Refusal::failed(format!("{error}\n")),
    }
}

/// A folder's names with links to them, in the form of Go's file server.
fn listing(names: &[String], more: bool) -> String {
    let mut page =
        String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        page.push_str("<a href=\"");
        // Of a name with a colon the beginning would be a scheme.
        page.push_str("./");
        page.push_str(&percent(name));
        page.push_str("\">");
        page.push_str(&escaped(name));
        page.push_str("</a>\n");
    }
    if more {
        page.push_str("and more\n");
    }
    page.push_str("</pre>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// Percent-encoding of all but what stands for itself in a path.
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Into a text nothing fails.
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

/// The file as it is now: what is written to it meanwhile is for the next request.
fn file_reply(path: &str, file: File, length: u64, place: OwnedSemaphorePermit) -> Reply {
    let kind = if path.ends_with(".gz") { "application/gzip" } else { "text/plain; charset=utf-8" };
    let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(length), BLOCK);
    // One that cannot be read any further ends before its length, which the client notices.
    let all = bytes.map_while(Result::ok).map(move |bytes| {
        let _until_the_end = &place;
        Ok(Frame::data(bytes))
    });
    let mut reply = Response::new(StreamBody::new(all).boxed_unsync());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_and_folders_are_found_and_nothing_outside() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("log");
        fs::create_dir_all(logs.join("pods/a")).unwrap();
        fs::write(logs.join("pods/a/0.log"), "line\n").unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        symlink(logs.join("pods/a/0.log"), logs.join("link.log")).unwrap();
        symlink("../secret", logs.join("out.log")).unwrap();
        nix::unistd::mkfifo(&logs.join("pipe"), Mode::S_IRWXU).unwrap();
        fs::write(logs.join("a<b&\"c"), "").unwrap();
        let find = |path: &str| find(&logs, Path::new(path));
        let Found::Folder(names, false) = find("").unwrap() else { panic!() };
        assert_eq!(names, ["a<b&\"c", "link.log", "out.log", "pipe", "pods/"]);
        let page = listing(&names, true);
        assert!(page.contains("<a href=\"./a%3Cb%26%22c\">a&lt;b&amp;&#34;c</a>\n"), "{page}");
        assert!(page.contains("<a href=\"./pods/\">pods/</a>\n") && page.contains("and more"), "{page}");
        for path in ["pods/a/0.log", "link.log"] {
            let Found::File(file, 5) = find(path).unwrap() else { panic!("{path}") };
            assert_eq!(io::read_to_string(file).unwrap(), "line\n", "{path}");
        }
        for (path, status) in [
            ("out.log", StatusCode::FORBIDDEN),
            ("pipe", StatusCode::FORBIDDEN),
            ("absent", StatusCode::NOT_FOUND),
            ("../secret", StatusCode::NOT_FOUND),
            ("pods/a/0.log/x", StatusCode::NOT_FOUND),
        ] {
            let refusal = find(path).map_err(|error| refused(&error)).err().unwrap();
            assert_eq!(refusal.0, status, "{path}: {}", refusal.1);
        }
    }
}
