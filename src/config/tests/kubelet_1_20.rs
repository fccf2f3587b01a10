//! Kubelet 1.20.2 as released: every flag, key and feature gate of it is known here.

use super::*;

const FLAGS: &str = "\
    add-dir-header address allowed-unsafe-sysctls alsologtostderr anonymous-auth \
    application-metrics-count-limit authentication-token-webhook \
    authentication-token-webhook-cache-ttl authorization-mode \
    authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl \
    boot-id-file bootstrap-kubeconfig cert-dir cgroup-driver cgroup-root cgroups-per-qos \
    chaos-chance client-ca-file cloud-config cloud-provider cluster-dns cluster-domain cni-bin-dir \
    cni-cache-dir cni-conf-dir config container-hints container-log-max-files \
    container-log-max-size container-runtime container-runtime-endpoint containerd \
    containerd-namespace contention-profiling cpu-cfs-quota cpu-cfs-quota-period cpu-manager-policy \
    cpu-manager-reconcile-period docker docker-endpoint docker-env-metadata-whitelist docker-only \
    docker-root docker-tls docker-tls-ca docker-tls-cert docker-tls-key dynamic-config-dir \
    enable-cadvisor-json-endpoints enable-controller-attach-detach enable-debugging-handlers \
    enable-load-reader enable-server enforce-node-allocatable event-burst event-qps \
    event-storage-age-limit event-storage-event-limit eviction-hard eviction-max-pod-grace-period \
    eviction-minimum-reclaim eviction-pressure-transition-period eviction-soft \
    eviction-soft-grace-period exit-on-lock-contention experimental-allocatable-ignore-eviction \
    experimental-bootstrap-kubeconfig experimental-check-node-capabilities-before-mount \
    experimental-dockershim-root-directory experimental-kernel-memcg-notification \
    experimental-logging-sanitization experimental-mounter-path fail-swap-on feature-gates \
    file-check-frequency global-housekeeping-interval hairpin-mode healthz-bind-address \
    healthz-port hostname-override housekeeping-interval http-check-frequency \
    image-credential-provider-bin-dir image-credential-provider-config image-gc-high-threshold \
    image-gc-low-threshold image-pull-progress-deadline image-service-endpoint iptables-drop-bit \
    iptables-masquerade-bit keep-terminated-pod-volumes kernel-memcg-notification kube-api-burst \
    kube-api-content-type kube-api-qps kube-reserved kube-reserved-cgroup kubeconfig \
    kubelet-cgroups lock-file log-backtrace-at log-cadvisor-usage log-dir log-file \
    log-file-max-size log-flush-frequency logging-format logtostderr machine-id-file \
    make-iptables-util-chains manifest-url manifest-url-header master-service-namespace \
    max-open-files max-pods maximum-dead-containers maximum-dead-containers-per-container \
    minimum-container-ttl-duration minimum-image-ttl-duration network-plugin network-plugin-mtu \
    node-ip node-labels node-status-max-images node-status-update-frequency non-masquerade-cidr \
    one-output oom-score-adj pod-cidr pod-infra-container-image pod-manifest-path pod-max-pids \
    pods-per-core port protect-kernel-defaults provider-id qos-reserved read-only-port \
    really-crash-for-testing register-node register-schedulable register-with-taints registry-burst \
    registry-qps reserved-cpus resolv-conf root-dir rotate-certificates rotate-server-certificates \
    runonce runtime-cgroups runtime-request-timeout seccomp-profile-root serialize-image-pulls \
    skip-headers skip-log-headers stderrthreshold storage-driver-buffer-duration storage-driver-db \
    storage-driver-host storage-driver-password storage-driver-secure storage-driver-table \
    storage-driver-user streaming-connection-idle-timeout sync-frequency system-cgroups \
    system-reserved system-reserved-cgroup tls-cert-file tls-cipher-suites tls-min-version \
    tls-private-key-file topology-manager-policy topology-manager-scope v vmodule volume-plugin-dir \
    volume-stats-agg-period";

const KEYS: &str = "\
    address allowedUnsafeSysctls anonymous authentication authorization cacheAuthorizedTTL cacheTTL \
    cacheUnauthorizedTTL cgroupDriver cgroupRoot cgroupsPerQOS clientCAFile clusterDNS \
    clusterDomain configMapAndSecretChangeDetectionStrategy containerLogMaxFiles \
    containerLogMaxSize contentType cpuCFSQuota cpuCFSQuotaPeriod cpuManagerPolicy \
    cpuManagerReconcilePeriod enableContentionProfiling enableControllerAttachDetach \
    enableDebuggingHandlers enableServer enableSystemLogHandler enabled enforceNodeAllocatable \
    eventBurst eventRecordQPS evictionHard evictionMaxPodGracePeriod evictionMinimumReclaim \
    evictionPressureTransitionPeriod evictionSoft evictionSoftGracePeriod failSwapOn featureGates \
    fileCheckFrequency hairpinMode healthzBindAddress healthzPort httpCheckFrequency \
    imageGCHighThresholdPercent imageGCLowThresholdPercent imageMinimumGCAge iptablesDropBit \
    iptablesMasqueradeBit kernelMemcgNotification kubeAPIBurst kubeAPIQPS kubeReserved \
    kubeReservedCgroup kubeletCgroups logging makeIPTablesUtilChains maxOpenFiles maxPods mode \
    nodeLeaseDurationSeconds nodeStatusMaxImages nodeStatusReportFrequency \
    nodeStatusUpdateFrequency oomScoreAdj podCIDR podPidsLimit podsPerCore port \
    protectKernelDefaults providerID qosReserved readOnlyPort registryBurst registryPullQPS \
    reservedSystemCPUs resolvConf rotateCertificates runOnce runtimeRequestTimeout \
    serializeImagePulls serverTLSBootstrap showHiddenMetricsForVersion shutdownGracePeriod \
    shutdownGracePeriodCriticalPods staticPodPath staticPodURL staticPodURLHeader \
    streamingConnectionIdleTimeout syncFrequency systemCgroups systemReserved systemReservedCgroup \
    tlsCertFile tlsCipherSuites tlsMinVersion tlsPrivateKeyFile topologyManagerPolicy \
    topologyManagerScope volumePluginDir volumeStatsAggPeriod webhook x509";

const GATES: &str = "\
    APIListChunking APIPriorityAndFairness APIResponseCompression APIServerIdentity \
    AdvancedAuditing AllAlpha AllBeta AllowInsecureBackendProxy AnyVolumeDataSource AppArmor \
    AttachVolumeLimit BalanceAttachedNodeVolumes BlockVolume BoundServiceAccountTokenVolume \
    CPUManager CRIContainerLogRotation CSIBlockVolume CSIDriverRegistry CSIInlineVolume \
    CSIMigration CSIMigrationAWS CSIMigrationAWSComplete CSIMigrationAzureDisk \
    CSIMigrationAzureDiskComplete CSIMigrationAzureFile CSIMigrationAzureFileComplete \
    CSIMigrationGCE CSIMigrationGCEComplete CSIMigrationOpenStack CSIMigrationOpenStackComplete \
    CSIMigrationvSphere CSIMigrationvSphereComplete CSINodeInfo CSIServiceAccountToken \
    CSIStorageCapacity CSIVolumeFSGroupPolicy ConfigurableFSGroupPolicy CronJobControllerV2 \
    CustomCPUCFSQuotaPeriod DefaultPodTopologySpread DevicePlugins DisableAcceleratorUsageMetrics \
    DownwardAPIHugePages DryRun DynamicKubeletConfig EfficientWatchResumption EndpointSlice \
    EndpointSliceNodeName EndpointSliceProxying EndpointSliceTerminatingCondition \
    EphemeralContainers EvenPodsSpread ExecProbeTimeout ExpandCSIVolumes \
    ExpandInUsePersistentVolumes ExpandPersistentVolumes ExperimentalHostUserNamespaceDefaulting \
    ExternalPolicyForExternalIP GenericEphemeralVolume GracefulNodeShutdown HPAContainerMetrics \
    HPAScaleToZero HugePageStorageMediumSize HyperVContainer IPv6DualStack \
    ImmutableEphemeralVolumes KubeletCredentialProviders KubeletPodResources LegacyNodeRoleBehavior \
    LocalStorageCapacityIsolation LocalStorageCapacityIsolationFSQuotaMonitoring \
    MixedProtocolLBService NodeDisruptionExclusion NodeLease NonPreemptingPriority \
    PodDisruptionBudget PodOverhead ProcMountType QOSReserved RemainingItemCount RemoveSelfLink \
    RootCAConfigMap RotateKubeletClientCertificate RotateKubeletServerCertificate RunAsGroup \
    RuntimeClass SCTPSupport SelectorIndex ServerSideApply ServiceAccountIssuerDiscovery \
    ServiceAppProtocol ServiceLBNodePortControl ServiceNodeExclusion ServiceTopology \
    SetHostnameAsFQDN SizeMemoryBackedVolumes StartupProbe StorageObjectInUseProtection \
    StorageVersionAPI StorageVersionHash StreamingProxyRedirects SupportNodePidsLimit \
    SupportPodPidsLimit Sysctls TTLAfterFinished TokenRequest TokenRequestProjection \
    TopologyManager ValidateProxyRedirects VolumePVCDataSource VolumeSnapshotDataSource \
    VolumeSubpath WarningHeaders WatchBookmark WinDSR WinOverlay WindowsEndpointSliceProxying \
    WindowsGMSA WindowsRunAsUserName";

#[test]
fn every_flag_key_and_gate_of_1_20_is_known() {
    for name in FLAGS.split_whitespace() {
        assert!(find_flag(name).is_some(), "--{name}");
    }
    for name in KEYS.split_whitespace() {
        assert!(keys().iter().any(|spec| spec.path.rsplit('.').next() == Some(name)), "{name}");
    }
    for name in GATES.split_whitespace() {
        assert!(lookup_gate(name).is_some(), "{name}");
    }
}
