# An RT on loopback in the folder $ASKONCE_RT_FOLDER: SQLite, and no mail leaves.
use utf8;
my $folder = $ENV{ASKONCE_RT_FOLDER} or die 'ASKONCE_RT_FOLDER is not set';
my $port = $ENV{ASKONCE_RT_PORT} || 80;

Set($rtname, 'local.test');
Set($Organization, 'local.test');
Set($CorrespondAddress, 'rt@local.test');
Set($CommentAddress, 'rt-comment@local.test');
Set($WebDomain, '127.0.0.1');
Set($WebPort, $port);
Set($WebPath, '');
Set($WebBaseURL, "http://127.0.0.1:$port");
Set($RestrictReferrer, 0);
Set($Timezone, 'UTC');
Set($DatabaseType, 'SQLite');
Set($DatabaseName, "$folder/rt5.db");
Set($MailCommand, 'testfile');
Set($LogToSyslog, undef);
Set($LogToSTDERR, 'warning');
Set($LogToFile, undef);
Set($MasonDataDir, "$folder/mason");
Set($MasonSessionDir, "$folder/sessions");
Set($WebSessionClass, 'Apache::Session::File');

Set($AskOnceUrl, $ENV{ASKONCE_RT_HOOK_URL} || '');
Set($AskOnceSecret, $ENV{ASKONCE_RT_HOOK_SECRET} || '');
Set($AskOnceUser, 'askonce');
1;
