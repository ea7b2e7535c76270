# Waits until Windows has no device left to install: exit code 0, or 258 (WAIT_TIMEOUT) when there
# still are after that many seconds. Anything else: it could not wait (policy, language mode).
param([Parameter(Mandatory = $true)][ValidateRange(1, 7200)][int] $Seconds)
$ErrorActionPreference = 'Stop'
try {
    $setup = Add-Type -PassThru -Namespace Imageport -Name DeviceSetup -MemberDefinition @'
[DllImport("cfgmgr32.dll", ExactSpelling = true)]
public static extern uint CMP_WaitNoPendingInstallEvents(uint milliseconds);
'@
    # A scan that has just begun has not found anything yet.
    Start-Sleep -Seconds 5
    $code = [int] $setup::CMP_WaitNoPendingInstallEvents([uint32] ($Seconds * 1000))
} catch {
    Write-Output $_.Exception.Message
    $code = 2
}
exit $code
