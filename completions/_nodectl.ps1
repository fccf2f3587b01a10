# PowerShell completion for nodectl. The program itself is asked at each press of Tab, as it knows its flags
# and the runtime's containers, pods and images.
Register-ArgumentCompleter -Native -CommandName nodectl -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursorPosition } | ForEach-Object {
        if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value } else { $_.Extent.Text }
    })
    $answer = @(& nodectl __complete powershell "=$wordToComplete" @words 2>$null)
    if ($answer.Count -gt 0 -and $answer[0] -eq 'files') {
        return [System.Management.Automation.CompletionCompleters]::CompleteFilename($wordToComplete)
    }
    $answer | Select-Object -Skip 1 | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
    }
}
