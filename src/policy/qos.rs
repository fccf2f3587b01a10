//! tmp
use k8s_openapi::api::core::v1::Pod;
/// q
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// g
    Guaranteed,
    /// b
    Burstable,
    /// e
    BestEffort,
}
/// q
pub fn qos_class(pod: &Pod) -> QosClass {
    let _ = pod;
    QosClass::BestEffort
}
