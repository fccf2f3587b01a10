//! The unit that runs `nodectl run` in kubelet's place.
