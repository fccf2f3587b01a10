//! Connections to the node's API and to API servers, byte by byte: TLS without looking at the server's certificate,
//! and WebSockets with kubectl's channels.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

/// How long the other side may be silent.
pub(crate) const SILENT: Duration = Duration::from_secs(90);

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What a client shows, and what it speaks.
pub(crate) fn client(identity: Option<(&Path, &Path)>, alpn: &[&str]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match identity {
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).unwrap().collect();
            builder.with_client_auth_cert(chain.unwrap(), PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub(crate) fn connect(address: &str, client: &Arc<ClientConfig>) -> io::Result<Tls> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENT))?;
    stream.set_write_timeout(Some(SILENT))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

/// A WebSocket with channels: the first byte of each message says whose it is.
pub(crate) struct Channels {
    stream: Tls,
    received: Vec<u8>,
}

impl Channels {
    /// Opens one. The answer's head is the error if it is another than 101.
    pub(crate) fn open(address: &str, client: &Arc<ClientConfig>, path: &str) -> Result<Self, String> {
        let mut stream = connect(address, client).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut received = Vec::new();
        let end = loop {
            if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            let mut block = [0; 1024];
            let length = stream.read(&mut block).map_err(|error| error.to_string())?;
            if length == 0 {
                return Err(String::from_utf8_lossy(&received).into_owned());
            }
            received.extend_from_slice(&block[..length]);
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head);
        }
        received.drain(..end + 4);
        Ok(Self { stream, received })
    }

    /// Sends a message of less than 125 bytes on a channel.
    pub(crate) fn send(&mut self, channel: u8, bytes: &[u8]) {
        let length = u8::try_from(bytes.len() + 1).unwrap();
        assert!(length < 126);
        // A final binary frame, masked with zeros.
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend_from_slice(bytes);
        self.stream.write_all(&frame).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next message with bytes, by its channel; `None` when the other side has closed.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let [first, second] = self.take(2)?[..] else { unreachable!() };
            let length = match second & 0x7f {
                126 => u16::from_be_bytes(self.take(2)?.try_into().unwrap()).into(),
                127 => u64::from_be_bytes(self.take(8)?.try_into().unwrap()).try_into().unwrap(),
                short => short.into(),
            };
            let payload = self.take(length)?;
            match (first & 0x0f, payload.split_first()) {
                (8, _) => return None,
                (1 | 2, Some((channel, bytes))) if !bytes.is_empty() => {
                    return Some((*channel, bytes.to_vec()));
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            let mut block = [0; 4096];
            match self.stream.read(&mut block) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.received.extend_from_slice(&block[..length]),
            }
        }
        Some(self.received.drain(..count).collect())
    }

    /// All that comes until the end: what was written to standard output, and the status on the error channel.
    pub(crate) fn rest(&mut self) -> (String, String) {
        let (mut out, mut status) = (Vec::new(), Vec::new());
        while let Some((channel, bytes)) = self.receive() {
            match channel {
                1 => out.extend(bytes),
                3 => status.extend(bytes),
                _ => {}
            }
        }
        (String::from_utf8(out).unwrap(), String::from_utf8(status).unwrap())
    }
}
