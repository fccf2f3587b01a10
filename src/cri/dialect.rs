//! Speaks v1alpha2 to a runtime that serves no v1 (containerd 1.5 and before).
//!
//! v1 began as a copy of v1alpha2 under another package name, and every field that v1alpha2 has is there
//! under the same number and type; what v1 has gained since stands beside them. So nothing but the path of a
//! call is changed: `/runtime.v1.RuntimeService/X` becomes `/runtime.v1alpha2.RuntimeService/X`. An older
//! runtime skips the fields that it does not know, and leaves those empty that it would not fill.
//!
//! Which of the two it is is learned from the first answer: a server that has no service of that name says
//! so before it reads the request, and the request, kept until then, is sent once more. To a runtime
//! with v1 this costs nothing.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, Uri,
    body::Bytes,
    http::{request::Parts, uri::PathAndQuery},
};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::{Service, ServiceExt as _};

const V1: &str = "/runtime.v1.";
const V1ALPHA2: &str = "/runtime.v1alpha2.";

/// What a server in Go says of a service that it does not have, before the service's name.
pub(super) const UNKNOWN_SERVICE: &str = "unknown service ";

/// Which interface a runtime is spoken to in. Copies share what was learned.
#[derive(Debug, Clone, Default)]
pub(super) enum Dialect {
    /// v1 and nothing else.
    #[default]
    V1,
    /// v1 where it is served, else v1alpha2.
    Either(Arc<AtomicU8>),
}

// 0 is not known yet.
const IS_V1: u8 = 1;
const IS_V1ALPHA2: u8 = 2;

impl Dialect {
    /// v1 where it is served, else v1alpha2.
    pub(super) fn either() -> Self {
        Self::Either(Arc::default())
    }

    /// Whether the runtime is known to serve v1alpha2 alone.
    pub(super) fn is_v1alpha2(&self) -> bool {
        matches!(self, Self::Either(known) if known.load(Ordering::Relaxed) == IS_V1ALPHA2)
    }
}

/// A connection that speaks a dialect.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) dialect: Dialect,
}

type Answer = Result<Response<Body>, tonic::transport::Error>;

impl Service<Request<Body>> for Line {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Dialect::Either(known) = &self.dialect else {
            return Box::pin(self.channel.call(request));
        };
        match known.load(Ordering::Relaxed) {
            IS_V1 => Box::pin(self.channel.call(request)),
            IS_V1ALPHA2 => {
                let (parts, body) = request.into_parts();
                Box::pin(self.channel.call(Request::from_parts(in_v1alpha2(parts), body)))
            }
            _ => {
                // The one that is ready; its copy is asked again if need be.
                let copy = self.channel.clone();
                let ready = mem::replace(&mut self.channel, copy.clone());
                Box::pin(learn(ready, copy, Arc::clone(known), request))
            }
        }
    }
}

async fn learn(mut ready: Channel, again: Channel, known: Arc<AtomicU8>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    // A unary request is one message that is in memory already.
    let Ok(body) = body.collect().await else {
        return ready.call(Request::from_parts(parts, Body::empty())).await;
    };
    let body = body.to_bytes();
    let send = |parts: Parts, body: &Bytes| Request::from_parts(parts, Body::new(Full::new(body.clone())));
    let answer = ready.call(send(parts.clone(), &body)).await?;
    if !refuses_service(&answer) {
        known.store(IS_V1, Ordering::Relaxed);
        return Ok(answer);
    }
    let answer = again.oneshot(send(in_v1alpha2(parts), &body)).await?;
    if !refuses_service(&answer) {
        known.store(IS_V1ALPHA2, Ordering::Relaxed);
    }
    Ok(answer)
}

/// Does the answer say that there is no such service? Then it has no body, and its status is in the head.
fn refuses_service(answer: &Response<Body>) -> bool {
    Status::from_header_map(answer.headers()).is_some_and(|status| {
        status.code() == Code::Unimplemented && status.message().starts_with(UNKNOWN_SERVICE)
    })
}

/// The same call of the other package. What is none of CRI's is left as it is.
fn in_v1alpha2(mut parts: Parts) -> Parts {
    let Some(rest) = parts.uri.path().strip_prefix(V1) else { return parts };
    let Ok(path) = PathAndQuery::try_from(format!("{V1ALPHA2}{rest}")) else { return parts };
    let mut uri = mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(path);
    // It differs from a good one in its path alone.
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Parts {
        Request::builder().uri(format!("http://localhost{path}")).body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_package_alone_is_another() {
        let path = |path: &str| in_v1alpha2(parts(path)).uri.to_string();
        assert_eq!(
            path("/runtime.v1.RuntimeService/Version"),
            "http://localhost/runtime.v1alpha2.RuntimeService/Version"
        );
        assert_eq!(
            path("/runtime.v1.ImageService/ListImages"),
            "http://localhost/runtime.v1alpha2.ImageService/ListImages"
        );
        let other = "/containerd.services.events.v1.Events/Subscribe";
        assert_eq!(path(other), format!("http://localhost{other}"));
    }

    #[test]
    fn only_a_missing_service_is_a_reason_to_try_the_other() {
        let answer = |code: &str, message: &str| {
            let answer = Response::builder().header("grpc-status", code).header("grpc-message", message);
            refuses_service(&answer.body(Body::empty()).unwrap())
        };
        assert!(answer("12", "unknown service runtime.v1.RuntimeService"));
        assert!(!answer("12", "unknown method RuntimeConfig for service runtime.v1.RuntimeService"));
        assert!(!answer("2", "unknown service runtime.v1.RuntimeService"));
        assert!(!refuses_service(&Response::new(Body::empty())));
    }

    #[test]
    fn what_is_learned_is_shared() {
        let dialect = Dialect::either();
        let copy = dialect.clone();
        assert!(!copy.is_v1alpha2() && !Dialect::V1.is_v1alpha2());
        if let Dialect::Either(known) = &dialect {
            known.store(IS_V1ALPHA2, Ordering::Relaxed);
        }
        assert!(copy.is_v1alpha2());
    }
}
