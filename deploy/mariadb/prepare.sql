-- Prepares a MariaDB server (10.6 or newer) that holds datasets. Its administrator runs it once, with the client
-- `mariadb`, after replacing {registrar}, {minter} and {watch} by passwords. docs/connect-mariadb.md tells the rest.

-- What every account may enter, and accounts without a name, are doors that no ending of a guest closes.
DELETE FROM mysql.db WHERE User IN ('', 'PUBLIC');
DELETE FROM mysql.global_priv WHERE User = '';
FLUSH PRIVILEGES;

CREATE DATABASE guestkey_slices CHARACTER SET utf8mb4;
CREATE DATABASE guestkey_ops CHARACTER SET utf8mb4;

-- The registrar makes slices: their views read as it, so they show what it was granted and no more.
CREATE USER guestkey_registrar@'%' IDENTIFIED BY '{registrar}' WITH MAX_USER_CONNECTIONS 5;
GRANT SELECT, CREATE VIEW, DROP ON guestkey_slices.* TO guestkey_registrar@'%';

-- The minter is OpenBao's own login, the watch the worker's: both may do nothing but call what is below.
CREATE USER guestkey_minter@'%' IDENTIFIED BY '{minter}' WITH MAX_USER_CONNECTIONS 10;
CREATE USER guestkey_watch@'%' IDENTIFIED BY '{watch}' WITH MAX_USER_CONNECTIONS 20;

-- CREATE USER is root in effect in MariaDB. So it belongs to an account that nobody can log in to.
CREATE USER guestkey_keeper@localhost ACCOUNT LOCK;
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO guestkey_keeper@localhost;
GRANT SELECT ON mysql.global_priv TO guestkey_keeper@localhost;
GRANT EXECUTE ON guestkey_ops.* TO guestkey_keeper@localhost;
GRANT SELECT ON guestkey_slices.* TO guestkey_keeper@localhost WITH GRANT OPTION;

-- From here on everything may be run again, by which a server prepared earlier gets this release's procedures.
DELIMITER $$
CREATE OR REPLACE DEFINER = guestkey_keeper@localhost PROCEDURE guestkey_ops.check_name(who VARCHAR(128) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin)
  DETERMINISTIC NO SQL SQL SECURITY DEFINER
BEGIN
  -- Nothing but our own names is ever touched, and none that could end a string.
  IF who IS NULL OR LEFT(who, 3) <> 'gk_' OR BINARY who REGEXP BINARY '[^a-z0-9_]' THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not the name of a guest';
  END IF;
END $$

CREATE OR REPLACE DEFINER = guestkey_keeper@localhost PROCEDURE guestkey_ops.make_guest(who VARCHAR(128) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin, secret VARCHAR(128), what VARCHAR(64))
  MODIFIES SQL DATA SQL SECURITY DEFINER
BEGIN
  DECLARE made BOOLEAN DEFAULT FALSE;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN
    IF made THEN EXECUTE IMMEDIATE CONCAT('DROP USER ''', who, '''@''%'''); END IF;
    RESIGNAL;
  END;
  CALL guestkey_ops.check_name(who);
  IF what NOT LIKE 'v\_%' OR BINARY what REGEXP BINARY '[^a-z0-9_]' THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not the name of a slice';
  END IF;
  -- By its hash: what follows is written to the binary log.
  EXECUTE IMMEDIATE CONCAT('CREATE USER ''', who, '''@''%'' IDENTIFIED BY PASSWORD ''', PASSWORD(secret),
    ''' WITH MAX_USER_CONNECTIONS 3 MAX_STATEMENT_TIME 60');
  SET made = TRUE;
  EXECUTE IMMEDIATE CONCAT('GRANT SELECT ON guestkey_slices.', what, ' TO ''', who, '''@''%''');
END $$

-- By itself, because it writes nothing and waits for nobody: on a full disk what follows in end_guest does.
CREATE OR REPLACE DEFINER = guestkey_keeper@localhost PROCEDURE guestkey_ops.kill_guest(who VARCHAR(128) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin)
  NO SQL SQL SECURITY DEFINER
BEGIN
  CALL guestkey_ops.check_name(who);
  EXECUTE IMMEDIATE CONCAT('KILL CONNECTION USER ''', who, '''');
END $$

CREATE OR REPLACE DEFINER = guestkey_keeper@localhost PROCEDURE guestkey_ops.end_guest(who VARCHAR(128) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin)
  MODIFIES SQL DATA SQL SECURITY DEFINER
BEGIN
  CALL guestkey_ops.check_name(who);
  -- Killed first: that writes nothing, so it works while the disk is full or accounts are being changed without pause.
  EXECUTE IMMEDIATE CONCAT('KILL CONNECTION USER ''', who, '''');
  -- Then each is in force before the next begins: a log-in under way has its name by then, and is killed, too.
  EXECUTE IMMEDIATE CONCAT('ALTER USER IF EXISTS ''', who, '''@''%'' ACCOUNT LOCK');
  EXECUTE IMMEDIATE CONCAT('KILL CONNECTION USER ''', who, '''');
  EXECUTE IMMEDIATE CONCAT('DROP USER IF EXISTS ''', who, '''@''%''');
END $$

CREATE OR REPLACE DEFINER = guestkey_keeper@localhost PROCEDURE guestkey_ops.guests(who VARCHAR(128) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin)
  READS SQL DATA SQL SECURITY DEFINER
BEGIN
  -- A session keeps the name of a user that was dropped. '' asks for all of ours. What is killed has lost its client
  -- and begins no further statement; a function that does not look whether it was killed computes on, for nobody.
  SELECT User AS name, 'user' AS what FROM mysql.global_priv
   WHERE User = who OR (who = '' AND LEFT(User, 3) = 'gk_')
  UNION ALL
  SELECT USER, IF(COMMAND = 'Killed', 'killed', 'session') FROM information_schema.PROCESSLIST
   WHERE USER = who OR (who = '' AND LEFT(USER, 3) = 'gk_');
END $$
DELIMITER ;

GRANT EXECUTE ON PROCEDURE guestkey_ops.make_guest TO guestkey_minter@'%';
GRANT EXECUTE ON PROCEDURE guestkey_ops.end_guest TO guestkey_minter@'%';
GRANT EXECUTE ON PROCEDURE guestkey_ops.kill_guest TO guestkey_watch@'%';
GRANT EXECUTE ON PROCEDURE guestkey_ops.end_guest TO guestkey_watch@'%';
GRANT EXECUTE ON PROCEDURE guestkey_ops.guests TO guestkey_watch@'%';
