//! An image registry on loopback that lets one user in, made for one test's containerd.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::{Containerd, IMAGE, SOON, containerd::script, free_port, wait_until};

/// A registry with one image. It ends with its containerd, also where a test is killed.
pub(crate) struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// Who is let in.
    pub(crate) const USER: &str = "bob";
    /// The user's password.
    pub(crate) const PASSWORD: &str = "s3cret-word";

    /// Starts one and puts the busybox image into it.
    pub(crate) fn start(containerd: &Containerd) -> Self {
        let output = script("registry.sh", &[], &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let program = String::from_utf8(output.stdout).unwrap();
        let folder = containerd.dir().join("registry");
        fs::create_dir(&folder).unwrap();
        let (users, config, port) = (folder.join("htpasswd"), folder.join("config.yml"), free_port());
        // bcrypt of the password.
        fs::write(&users, format!("{}:{HASH}\n", Self::USER)).unwrap();
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {0}/images}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n\
             auth: {{htpasswd: {{realm: test, path: {0}/htpasswd}}}}\n",
            folder.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program.trim())
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        // What has a number there is ended with containerd.
        fs::write(containerd.dir().join("registry.pid"), child.id().to_string()).unwrap();
        wait_until(SOON, "the registry listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let registry = Self { child, port };
        let image = registry.image();
        containerd.ctr(&["images", "tag", IMAGE, &image]);
        let user = format!("{}:{}", Self::USER, Self::PASSWORD);
        containerd.ctr(&["images", "push", "--plain-http", "--user", &user, &image]);
        containerd.ctr(&["images", "rm", "--sync", &image]);
        registry
    }

    /// The image that it has.
    pub(crate) fn image(&self) -> String {
        format!("{}/busybox:1", self.host())
    }

    /// Its name and port.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuzQDw2v3CQSMowG.sq3X.nH1lfmlmQMW";
