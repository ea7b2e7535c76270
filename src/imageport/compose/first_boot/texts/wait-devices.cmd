@echo off
rem %1 seconds. 0: no device is left to install; 258: there still are; else PowerShell did not run.
set "SHELL=%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe"
set "SCRIPT=%~dp0wait-devices.ps1"
"%SHELL%" -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "%SCRIPT%" -Seconds %~1
exit /b %ERRORLEVEL%
